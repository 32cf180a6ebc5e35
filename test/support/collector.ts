/**
 * An OpenTelemetry collector of the tests' own: a program that takes spans by OTLP/HTTP on 127.0.0.1:4318 and
 * appends each to the file named on its command line, as a line of JSON. The messages are defined here a
 * second time, after opentelemetry/proto/trace/v1/trace.proto, so that the sender's own library is not what
 * reads them.
 */

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import protobuf from 'protobufjs';

const { root } = protobuf.parse(`
  syntax = "proto3";
  message Request { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message ScopeSpans { repeated Span spans = 2; }
  message Span {
    bytes trace_id = 1;
    bytes span_id = 2;
    string trace_state = 3;
    bytes parent_span_id = 4;
    string name = 5;
    uint32 kind = 6;
    fixed64 start_time_unix_nano = 7;
    fixed64 end_time_unix_nano = 8;
    repeated KeyValue attributes = 9;
    repeated Event events = 11;
    Status status = 15;
  }
  message Event { string name = 2; repeated KeyValue attributes = 3; }
  message Status { string message = 2; uint32 code = 3; }
  message KeyValue { string key = 1; Value value = 2; }
  message Value { oneof value { string text = 1; bool flag = 2; int64 whole = 3; double number = 4; } }
`);
const requestType = root.lookupType('Request');

/** A span as the collector has understood it. */
export interface ReceivedSpan {
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  /** "" for a root span. */
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client. */
  readonly kind: number;
  /** In milliseconds since 1970. */
  readonly start: number;
  readonly end: number;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly events: readonly { name: string; attributes: Record<string, string | number> }[];
  /** 0 unset, 2 error. */
  readonly status: number;
  readonly message: string;
  /** The header that tests configure. */
  readonly token: string;
}

/** A message as protobufjs decodes it; fields with their default value are left out. */
interface Decoded {
  readonly resourceSpans?: readonly {
    resource: { attributes?: KeyValue[] };
    scopeSpans: { spans: DecodedSpan[] }[];
  }[];
}
interface KeyValue {
  readonly key: string;
  readonly value: { text?: string; whole?: string; number?: number };
}
interface DecodedSpan {
  readonly traceId: Buffer;
  readonly spanId: Buffer;
  readonly parentSpanId?: Buffer;
  readonly traceState?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes?: KeyValue[];
  readonly events?: { name: string; attributes?: KeyValue[] }[];
  readonly status?: { code?: number; message?: string };
}

function attributesOf(list: readonly KeyValue[] = []): Record<string, string | number> {
  return Object.fromEntries(
    list.map(({ key, value }) => [key, value.text ?? value.number ?? Number(value.whole)]),
  );
}

function spanOf(span: DecodedSpan, service: string, token: string): ReceivedSpan {
  const { traceId, spanId, parentSpanId, traceState = '', name, kind, events = [], status } = span;
  const milliseconds = (nanoseconds: string) => Number(BigInt(nanoseconds) / 1000n) / 1000;
  return {
    service,
    traceId: traceId.toString('hex'),
    spanId: spanId.toString('hex'),
    parentSpanId: parentSpanId?.toString('hex') ?? '',
    traceState,
    name,
    kind,
    start: milliseconds(span.startTimeUnixNano),
    end: milliseconds(span.endTimeUnixNano),
    attributes: attributesOf(span.attributes),
    events: events.map((event) => ({ name: event.name, attributes: attributesOf(event.attributes) })),
    status: status?.code ?? 0,
    message: status?.message ?? '',
    token,
  };
}

function spansOf(body: Buffer, token: string): ReceivedSpan[] {
  const decoded = requestType.toObject(requestType.decode(body), { longs: String }) as Decoded;
  return (decoded.resourceSpans ?? []).flatMap(({ resource, scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => spanOf(span, `${attributesOf(resource.attributes)['service.name']}`, token)),
    ),
  );
}

const [file = ''] = process.argv.slice(2);
createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const isSpans = request.method === 'POST' && request.url === '/v1/traces';
    if (!isSpans) return void response.writeHead(404).end();
    for (const span of spansOf(Buffer.concat(chunks), `${request.headers['x-token'] ?? ''}`))
      appendFileSync(file, `${JSON.stringify(span)}\n`);
    response.writeHead(200, { 'Content-Type': 'application/x-protobuf' }).end();
  });
}).listen(4318, '127.0.0.1', () => console.log('ready'));
