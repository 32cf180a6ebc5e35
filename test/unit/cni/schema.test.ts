import test from 'ava';
import {
  array,
  boolean,
  convert,
  decode,
  integer,
  object,
  record,
  required,
  SchemaError,
  string,
  toJsonSchema,
  withDefault,
} from '../../../lib/cni/schema.ts';

const mapping = object({
  hostPort: required(integer({ min: 1, max: 65535, description: 'Port on the node.' })),
  protocol: withDefault(string({ values: ['tcp', 'udp'] }), 'tcp'),
  hostIP: string(),
});

test('matches keys exactly first, then without regard to case', (t) => {
  t.deepEqual(decode(mapping, { HostPort: 80, PROTOCOL: 'udp' }), { hostPort: 80, protocol: 'udp' });
  t.is(decode(mapping, { HOSTPORT: 1, hostPort: 2, HostPort: 3 }).hostPort, 2);
  t.is(decode(mapping, { HOSTPORT: 1, HostPort: 3 }).hostPort, 3);
});

test('takes null for absent and ignores unknown keys', (t) => {
  t.deepEqual(decode(mapping, { hostPort: 80, hostIP: null, color: 'red' }), {
    hostPort: 80,
    protocol: 'tcp',
  });
});

test('takes "" for absent in fields that say so, and in no list', (t) => {
  const toPort = (text: string) => integer({ min: 1 }).decode(Number(text), 'port');
  const port = convert(string(), toPort, { emptyIsAbsent: true, examples: ['80'] });
  const shape = object({ port, ports: array(port) });
  t.deepEqual(port.json, { type: 'string', examples: ['80'] });
  t.deepEqual(decode(shape, { port: '' }), {});
  t.deepEqual(decode(shape, { port: '80', ports: ['81'] }), { port: 80, ports: [81] });
  t.throws(() => decode(shape, { ports: ['80', ''] }), { instanceOf: SchemaError });
});

test('takes "" for absent where text must match a pattern', (t) => {
  const chain = string({ pattern: /^[A-Z]+$/ });
  const shape = object({ chain });
  t.deepEqual(decode(shape, { chain: '' }), {});
  t.deepEqual(decode(shape, { chain: 'A' }), { chain: 'A' });
  t.throws(() => decode(shape, { chain: 'a' }), { instanceOf: SchemaError });
  const json = new RegExp(chain.json.pattern as string);
  t.deepEqual(
    ['', 'A', 'a', 'Aa'].filter((text) => json.test(text)),
    ['', 'A'],
  );
});

test('says where, what stands there and what is wanted', (t) => {
  const list = object({ mappings: array(mapping) });
  const message = (value: unknown) =>
    t.throws(() => decode(list, value), { instanceOf: SchemaError })?.message;
  t.is(
    message({ mappings: [{ hostPort: 80 }, { hostPort: '80' }] }),
    '"mappings[1].hostPort" is "80", but it must be a whole number',
  );
  t.is(
    message({ mappings: [{ hostPort: 65536 }] }),
    '"mappings[0].hostPort" is 65536, but it must be between 1 and 65535',
  );
  t.is(
    message({ mappings: [{ hostPort: 1, protocol: 'TCP' }] }),
    '"mappings[0].protocol" is "TCP", but it must be "tcp" or "udp"',
  );
  t.regex(message({ mappings: [{}] })!, /^"mappings\[0\]\.hostPort" is missing/);
  t.regex(message({ mappings: {} })!, /must be a list/);
  t.regex(message([])!, /must be an object/);
});

test('a hostile key cannot reach the prototype', (t) => {
  const value = decode(record(string()), JSON.parse('{"__proto__": "x", "constructor": "y"}'));
  t.deepEqual(Object.keys(value), ['__proto__', 'constructor']);
  t.is(Object.getPrototypeOf(value), Object.prototype);
  t.deepEqual(decode(object({ toString: string() }), {}), {});
});

test('a converted value keeps its place in the message', (t) => {
  const even = convert(integer(), (value) => {
    if (value % 2) throw new Error(`${value} is odd`);
    return value / 2;
  });
  t.is(decode(object({ n: even }), { n: 4 }).n, 2);
  t.throws(() => decode(object({ n: even }), { n: 3 }), { message: '"n": 3 is odd' });
});

test('describes itself as JSON Schema', (t) => {
  t.deepEqual(toJsonSchema(object({ on: withDefault(boolean(), true), map: mapping })), {
    type: 'object',
    properties: {
      on: { type: 'boolean', default: true },
      map: {
        type: 'object',
        required: ['hostPort'],
        properties: {
          hostPort: { type: 'integer', minimum: 1, maximum: 65535, description: 'Port on the node.' },
          protocol: { type: 'string', enum: ['tcp', 'udp'], default: 'tcp' },
          hostIP: { type: 'string' },
        },
      },
    },
  });
});

test('an object of which nothing is required names nothing as required', (t) => {
  t.deepEqual(toJsonSchema(object({ on: boolean() })), {
    type: 'object',
    properties: { on: { type: 'boolean' } },
  });
});

test('looks at the keys of an object once, however many of them and of its own fields there are', (t) => {
  let listings = 0;
  const config = new Proxy(Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`unknown${i}`, i])), {
    ownKeys(target) {
      listings++;
      return Reflect.ownKeys(target);
    },
  });
  const shape = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`field${i}`, string()]));
  t.deepEqual(decode(object(shape), config), {});
  t.is(listings, 1);
});
