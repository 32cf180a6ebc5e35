import test from 'ava';
import { parseTraceparent } from '../../../lib/cni/trace-context.ts';

// The examples of the specification.
const traceId = '0af7651916cd43dd8448eb211c80319c';
const spanId = 'b7ad6b7169203331';

test('a trace context is read, and whether it is sampled', (t) => {
  t.deepEqual(parseTraceparent(`00-${traceId}-${spanId}-01`), { traceId, spanId, isSampled: true });
  t.deepEqual(parseTraceparent(`00-${traceId}-${spanId}-00`), { traceId, spanId, isSampled: false });
  t.true(parseTraceparent(`00-${traceId}-${spanId}-03`)?.isSampled, 'further flags');
  t.false(parseTraceparent(`00-${traceId}-${spanId}-02`)?.isSampled);
});

test('a later version may have more fields', (t) => {
  for (const text of [`cc-${traceId}-${spanId}-01`, `cc-${traceId}-${spanId}-01-what-the-future-holds`])
    t.deepEqual(parseTraceparent(text), { traceId, spanId, isSampled: true }, text);
  t.is(parseTraceparent(`cc-${traceId}-${spanId}-01.more`), undefined);
});

test('what is malformed is no trace context', (t) => {
  for (const text of [
    undefined,
    '',
    '00',
    `00-${traceId}-${spanId}`,
    `00-${traceId}-${spanId}-01-more`,
    `00-${traceId}-${spanId}-01-`,
    `ff-${traceId}-${spanId}-01`,
    `00-${'0'.repeat(32)}-${spanId}-01`,
    `00-${traceId}-${'0'.repeat(16)}-01`,
    `00-${traceId.toUpperCase()}-${spanId}-01`,
    `00-${traceId.slice(1)}-${spanId}-01`,
    `00-${traceId}0-${spanId}-01`,
    `00-${traceId}-${spanId}-0x`,
    `0-${traceId}-${spanId}-01`,
    ` 00-${traceId}-${spanId}-01`,
    `00-${traceId}-${spanId}-01\n`,
    `00-${traceId}-${spanId}-01\n00-${traceId}-${spanId}-01`,
    `00-${'g'.repeat(32)}-${spanId}-01`,
  ])
    t.is(parseTraceparent(text), undefined, JSON.stringify(text));
});
