import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { heartbeatMs, Incoming, patienceMs } from '../../../agent/protocol.ts';

/** The longest offer and standard input that the protocol allows, in bytes. */
const [longestOffer, longestInput] = [256 * 1024, 16 * 1024 * 1024];

const offer = 'build\x004:1\x004:2\0bridge\0CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=\0\0';

function piece(data: string | Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(data.length);
  return Buffer.concat([length, Buffer.from(data)]);
}

test('a call is understood, whatever pieces it comes in', (t) => {
  const whole = Buffer.concat([Buffer.from(offer), piece('{"a":'), piece('1}'), piece(''), Buffer.from('A')]);
  for (let size = 1; size <= whole.length; size++) {
    const incoming = new Incoming();
    const rest = Array.from({ length: Math.ceil(whole.length / size) }, (_, i) =>
      whole.subarray(i * size, (i + 1) * size),
    );
    const until = <T>(take: () => T | undefined) => {
      for (;;) {
        const taken = take();
        if (taken !== undefined || rest.length === 0) return taken;
        incoming.add(rest.shift()!);
      }
    };
    t.deepEqual(
      until(() => incoming.takeOffer()),
      {
        build: 'build',
        mountNamespace: '4:1',
        networkNamespace: '4:2',
        name: 'bridge',
        environment: { CNI_COMMAND: 'ADD', CNI_ARGS: 'A=1;B=' },
      },
      `pieces of ${size}`,
    );
    t.is(
      until(() => incoming.takeInput()),
      '{"a":1}',
      `pieces of ${size}`,
    );
    t.true(until(() => incoming.takeAcknowledgement() || undefined));
  }
});

test('an offer that lacks a part is refused', (t) => {
  const incoming = new Incoming();
  incoming.add(Buffer.from('build\x004:1\x004:2\0\0'));
  t.throws(() => incoming.takeOffer(), { message: /incomplete/ });
});

test('an offer may be as long as the protocol allows and no longer', (t) => {
  const incoming = new Incoming();
  incoming.add(Buffer.alloc(longestOffer, 'x'));
  t.is(incoming.takeOffer(), undefined);
  incoming.add(Buffer.from('x'));
  t.throws(() => incoming.takeOffer(), { instanceOf: RangeError, message: /offer of a call is too long/ });
});

test('standard input may be as long as the protocol allows and no longer', (t) => {
  const half = Buffer.alloc(longestInput / 2, 'x');
  const incoming = new Incoming();
  incoming.add(Buffer.concat([piece(half), piece(half), piece('')]));
  t.is(incoming.takeInput()?.length, longestInput);
  const tooLong = new Incoming();
  tooLong.add(Buffer.concat([piece(half), piece(half), piece('x')]));
  t.throws(() => tooLong.takeInput(), { instanceOf: RangeError, message: /configuration is too long/ });
  // Its length alone decides, before it has arrived.
  const announced = new Incoming();
  announced.add(piece(Buffer.alloc(longestInput + 1)).subarray(0, 4));
  t.throws(() => announced.takeInput(), { instanceOf: RangeError });
});

test('the times of launcher and agent fit together, and are those that the table has', (t) => {
  const root = join(import.meta.dirname, '../../..');
  const launcher = readFileSync(join(root, 'launcher/agent.c'), 'utf8');
  const secondsOf = (name: string) => Number(new RegExp(`^#define ${name} (\\d+)$`, 'm').exec(launcher)?.[1]);
  const [acceptTimeout, aliveTimeout] = [secondsOf('ACCEPT_TIMEOUT'), secondsOf('ALIVE_TIMEOUT')];
  t.true(aliveTimeout * 1000 >= 4 * heartbeatMs);
  const table = readFileSync(join(root, 'agent/protocol.ts'), 'utf8');
  for (const [name, seconds] of [
    ['ACCEPT_TIMEOUT', acceptTimeout],
    ['heartbeatMs', heartbeatMs / 1000],
    ['ALIVE_TIMEOUT', aliveTimeout],
    ['patienceMs', patienceMs / 1000],
  ])
    t.regex(table, new RegExp(`^ \\*     ${name} .* ${seconds} s `, 'm'));
});
