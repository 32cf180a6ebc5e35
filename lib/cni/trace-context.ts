/** The trace that a runtime's call belongs to. Source: W3C Trace Context, section "traceparent Header". */

/** A span of a trace. */
export interface TraceContext {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  /** Whether the trace is kept. */
  readonly isSampled: boolean;
}

const format =
  /^(?<version>[\da-f]{2})-(?<traceId>[\da-f]{32})-(?<spanId>[\da-f]{16})-(?<flags>[\da-f]{2})(?<more>-.*)?$/;

/**
 * Reads TRACEPARENT.
 * @returns undefined when there is none, or it is malformed: the specification then requires a new trace.
 */
export function parseTraceparent(text = ''): TraceContext | undefined {
  const { version, traceId, spanId, flags, more } = format.exec(text)?.groups ?? {};
  if (!version || !traceId || !spanId || !flags) return undefined;
  // Only later versions may add fields; "ff" is no version.
  if (version === 'ff' || (version === '00' && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/** The value of TRACEPARENT for what a span calls. */
export function formatTraceparent({ traceId, spanId, isSampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-${isSampled ? '01' : '00'}`;
}
