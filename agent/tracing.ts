/**
 * Spans of calls, for an OpenTelemetry collector: one for each verb, within the trace of the runtime, and
 * below it those of delegates and of the programs of the host that were run. `cni agent` loads this file, and
 * with it OpenTelemetry, only when it is told where to send them.
 *
 * Names of attributes are those of OpenTelemetry's semantic conventions, where these have any.
 */

import { basename } from 'node:path';
import {
  type Attributes,
  type Context,
  createTraceState,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import {
  defaultResource,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import type { CallObserver, CallRecord } from '../lib/cni/record.ts';
import { formatTraceparent } from '../lib/cni/trace-context.ts';
import type { ProgramRun } from '../lib/kernel/programs.ts';
import { describeVerb } from './statistics.ts';

/** How long the agent waits for a collector when it ends, in milliseconds. */
const patienceMs = 2000;
/** How often trouble with the collector is reported at most, in milliseconds. */
const warningPauseMs = 60_000;
/** How many spans wait for the collector at most; further ones are dropped. */
const maxQueueSize = 2048;

/** How spans are sent. */
export interface TracingOptions {
  /** Base URL of the collector, as in "http://127.0.0.1:4318"; by default, OTEL_EXPORTER_OTLP_ENDPOINT's. */
  readonly endpoint: string | undefined;
  /** Version of the suite. */
  readonly version: string;
  /** Is told what is wrong: one error and one warning a minute at most. */
  readonly warn: (message: string) => void;
}

/** A span, and what its children need. */
interface Open {
  readonly span: Span;
  readonly context: Context;
}

/** Makes spans from the calls that it is told of. */
export class Tracing implements CallObserver {
  private readonly provider: TracerProvider;
  private readonly tracer: Tracer;
  private readonly open = new WeakMap<CallRecord, Open>();

  constructor({ endpoint, version, warn }: TracingOptions) {
    diag.setLogger(loggerFor(warn), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
    const url = endpoint && `${endpoint.replace(/\/+$/, '')}/v1/traces`;
    const exporter = new OTLPTraceExporter(url ? { url } : {});
    this.provider = new TracerProvider({
      resource: defaultResource()
        .merge(resourceFromAttributes({ 'service.name': 'cni-agent', 'service.version': version }))
        .merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] })),
      spanProcessors: [new BatchSpanProcessor({ exporter, maxQueueSize })],
    });
    this.tracer = this.provider.getTracer('cni-plugins-ts', version);
  }

  begin(record: CallRecord): void {
    const { parent } = record;
    const context = (parent && this.open.get(parent)?.context) ?? runtimeContext(record);
    const span = this.tracer.startSpan(
      `${record.plugin} ${describeVerb(record.verb)}`,
      {
        kind: parent ? (record.executable ? SpanKind.CLIENT : SpanKind.INTERNAL) : SpanKind.SERVER,
        // The runtime waits as well while the call waits for its turn.
        startTime: record.startTime - (record.waitedMs ?? 0),
        attributes: attributesOf(record),
      },
      context,
    );
    this.open.set(record, { span, context: trace.setSpan(context, span) });
    // A trace that the runtime does not sample is passed on as it came.
    if (!span.isRecording()) return;
    const { traceId, spanId } = span.spanContext();
    record.trace = { traceId, spanId, isSampled: true };
    record.delegateEnvironment = { TRACEPARENT: formatTraceparent(record.trace) };
  }

  ranProgram(record: CallRecord, { file, startTime, milliseconds, status }: ProgramRun): void {
    const name = basename(file);
    const attributes = {
      'process.executable.name': name,
      'process.executable.path': file,
      ...(status !== undefined && { 'process.exit.code': status }),
      ...(status !== 0 && { 'error.type': status === undefined ? 'signal' : `${status}` }),
    };
    const span = this.tracer.startSpan(
      name,
      { kind: SpanKind.CLIENT, startTime, attributes },
      this.open.get(record)?.context,
    );
    if (status !== 0) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(startTime + milliseconds);
  }

  end(record: CallRecord): void {
    const { span } = this.open.get(record) ?? {};
    if (!span) return;
    const { error, network, startTime, milliseconds } = record;
    if (network !== undefined) span.setAttribute('cni.network', network);
    const endTime = startTime + milliseconds;
    for (const { step, error: why } of record.undone)
      span.addEvent(
        'cni.undone',
        { 'cni.undone.step': step, ...(why && { 'exception.message': why }) },
        endTime,
      );
    if (error) {
      span.setAttribute('error.type', `${error.code}`);
      span.setStatus({ code: SpanStatusCode.ERROR, message: error.msg });
    }
    span.end(endTime);
  }

  /** Sends what is left. @returns false when the collector did not take it within two seconds. */
  async close(): Promise<boolean> {
    const late = new Promise<boolean>((resolve) => setTimeout(resolve, patienceMs, false).unref());
    const sent = this.provider.shutdown().then(
      () => true,
      () => false,
    );
    return await Promise.race([sent, late]);
  }
}

/** The runtime's span that a call belongs to, if there is one. */
function runtimeContext({ trace: runtime, traceState }: CallRecord): Context {
  if (!runtime) return ROOT_CONTEXT;
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId: runtime.traceId,
    spanId: runtime.spanId,
    traceFlags: runtime.isSampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
    isRemote: true,
    ...(traceState && { traceState: createTraceState(traceState) }),
  });
}

function attributesOf(record: CallRecord): Attributes {
  const { pod } = record;
  const attributes: Record<string, string | number | undefined> = {
    'cni.plugin': record.plugin,
    'cni.command': record.verb,
    'cni.netns': record.netns,
    'cni.waited_ms': record.waitedMs,
    'container.id': record.containerId,
    'network.interface.name': record.ifname,
    'k8s.namespace.name': pod?.namespace,
    'k8s.pod.name': pod?.name,
    'k8s.pod.uid': pod?.uid,
    'process.executable.path': record.executable,
  };
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined));
}

/** A logger for OpenTelemetry that passes on one error and one warning a minute. */
function loggerFor(warn: (message: string) => void) {
  return {
    error: occasionally((message) =>
      warn(`Spans cannot be sent, and calls go on without: ${explain(message)}`),
    ),
    warn: occasionally(warn),
    info() {},
    debug() {},
    verbose() {},
  };
}

/** Passes on one message a minute. */
function occasionally(tell: (message: string) => void): (message: string) => void {
  let next = 0;
  return (message) => {
    if (performance.now() < next) return;
    next = performance.now() + warningPauseMs;
    tell(message);
  };
}

/** OpenTelemetry reports an error as the JSON of its properties. */
function explain(message: string): string {
  try {
    const { message: text, code } = JSON.parse(message) as { message?: string; code?: string };
    return [text, code].filter(Boolean).join(', ') || message;
  } catch {
    return message;
  }
}
