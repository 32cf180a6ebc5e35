import test from 'ava';
import { clientOptions } from '../../../ipam/dhcp/options.ts';
import {
  classfulRoutes,
  classlessRoutes,
  decodeMessage,
  encodeMessage,
  MessageType,
  maskLength,
  Option,
  typeOf,
} from '../../../ipam/dhcp/packet.ts';
import { Address } from '../../../lib/ip.ts';

const message = {
  op: 2 as const,
  transaction: 0x12345678,
  yourAddress: Address.parse('10.0.0.9'),
  hardwareAddress: Uint8Array.of(2, 0, 0, 0, 0, 1),
  options: new Map([
    [Option.MessageType, Uint8Array.of(MessageType.Ack)],
    [Option.ServerIdentifier, Uint8Array.of(10, 0, 0, 1)],
  ]),
};

test('a message comes back as it was', (t) => {
  const decoded = decodeMessage(encodeMessage(message));
  t.like(decoded, { op: 2, transaction: 0x12345678, broadcast: false });
  t.is(`${decoded?.yourAddress}`, '10.0.0.9');
  t.deepEqual(decoded?.hardwareAddress, message.hardwareAddress);
  t.is(typeOf(decoded!), MessageType.Ack);
  t.is(encodeMessage(message).length, 300);
});

test('an answer with every option that counts is understood', (t) => {
  const options = Buffer.from(
    '350105' +
      '36040a000001' +
      '330400000e10' +
      '3a0400000708' +
      '3b0400000c4e' +
      '0104ffffff00' +
      '1c040a0000ff' +
      '03040a000001' +
      '7905' +
      '000a000001' +
      'ff',
    'hex',
  );
  const packet = new Uint8Array(240 + options.length);
  packet.set([2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
  packet.set([10, 0, 0, 77], 16);
  packet.set([99, 130, 83, 99], 236);
  packet.set(options, 240);
  const decoded = decodeMessage(packet)!;
  t.is(`${decoded.yourAddress}`, '10.0.0.77');
  t.deepEqual(
    classlessRoutes(decoded)?.map(({ dst, router }) => `${dst} ${router}`),
    ['0.0.0.0/0 10.0.0.1'],
  );
});

test('routes of both kinds', (t) => {
  const withOption = (number: number, ...bytes: number[]) => ({
    ...message,
    options: new Map([[number, Uint8Array.from(bytes)]]),
  });
  const text = (list: { dst: unknown; router: unknown }[] | undefined) =>
    list?.map(({ dst, router }) => `${dst} ${router}`);
  t.deepEqual(
    text(classlessRoutes(withOption(121, 24, 192, 168, 5, 10, 0, 0, 1, 0, 10, 0, 0, 2, 8, 172, 0, 0, 0, 0))),
    ['192.168.5.0/24 10.0.0.1', '0.0.0.0/0 10.0.0.2', '172.0.0.0/8 0.0.0.0'],
  );
  // As many bytes of the destination as its prefix length needs; the next route follows.
  for (let length = 0; length <= 32; length++) {
    const destination = [10, 0, 0, 0].slice(0, Math.ceil(length / 8));
    const routes = text(
      classlessRoutes(withOption(121, length, ...destination, 10, 0, 0, 1, 8, 11, 10, 0, 0, 2)),
    );
    t.is(routes?.length, 2, `${length}`);
    t.is(routes?.[1], '11.0.0.0/8 10.0.0.2', `${length}`);
  }
  t.is(classlessRoutes(withOption(121, 33, 1, 2, 3, 4, 5, 6, 7, 8, 9)), undefined);
  t.is(classlessRoutes(withOption(121, 24, 192, 168)), undefined);
  t.is(classlessRoutes(withOption(121)), undefined);
  t.deepEqual(text(classfulRoutes(withOption(33, 10, 1, 2, 3, 10, 0, 0, 1, 192, 168, 9, 9, 10, 0, 0, 2))), [
    '10.0.0.0/8 10.0.0.1',
    '192.168.9.0/24 10.0.0.2',
  ]);
  // The first and the last network of each class.
  for (const [destination, prefix] of [
    [[1, 2, 3, 4], '1.0.0.0/8'],
    [[127, 2, 3, 4], '127.0.0.0/8'],
    [[128, 2, 3, 4], '128.2.0.0/16'],
    [[191, 2, 3, 4], '191.2.0.0/16'],
    [[192, 2, 3, 4], '192.2.3.0/24'],
  ] as const)
    t.deepEqual(text(classfulRoutes(withOption(33, ...destination, 10, 0, 0, 1))), [`${prefix} 10.0.0.1`]);
  t.deepEqual(text(classfulRoutes(withOption(33, 10, 1, 2, 3))), [], 'a destination without a router');
  t.is(maskLength(Address.parse('255.255.240.0')), 20);
  t.is(maskLength(Address.parse('255.255.255.255')), 32);
  t.is(maskLength(Address.parse('255.0.255.0')), undefined);
});

test('garbage never throws: cut anywhere, with any byte changed', (t) => {
  const good = encodeMessage(message);
  for (let length = 0; length < good.length; length++)
    t.notThrows(() => decodeMessage(good.subarray(0, length)));
  let state = 12345;
  for (let i = 0; i < 20_000; i++) {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    const bad = good.slice();
    bad[state % bad.length] = (state >> 8) & 255;
    bad[(state >> 4) % bad.length] = (state >> 16) & 255;
    const decoded = decodeMessage(bad);
    if (decoded) {
      classlessRoutes(decoded);
      classfulRoutes(decoded);
    }
  }
  t.pass();
});

test('options of the configuration', (t) => {
  const options = clientOptions(
    {
      request: [{ option: '121' }, { option: 'host-name' }],
      provide: [
        { option: 'host-name', value: 'node', fromArg: 'K8S_POD_NAME' },
        { option: 'vendor-class-identifier', value: 'cni' },
        { option: '43', fromArg: 'MISSING' },
        { option: 'user-class', value: 'plain', fromArg: 'MISSING' },
      ],
    },
    'id/net/eth0',
    { K8S_POD_NAME: 'web' },
  );
  t.deepEqual(options.request, [1, 3, 121, 12]);
  t.deepEqual(
    [...options.provide].map(([number, value]) => [number, Buffer.from(value).toString()]),
    [
      [12, 'web'],
      [60, 'cni'],
      [77, 'plain'],
    ],
  );
  t.deepEqual(Buffer.from(options.clientId).toString(), '\0id/net/eth0');
  t.deepEqual(clientOptions({ request: [{ skipDefault: true }] }, 'x', {}).request, [1]);
  t.is(clientOptions({}, 'x'.repeat(400), {}).clientId.length, 255);
  for (const option of ['frobnicate', '0', '255', '-1', '1000'])
    t.throws(
      () => clientOptions({ request: [{ option }] }, 'x', {}),
      { message: /not a DHCP option/ },
      option,
    );
  const ends = clientOptions(
    { request: [{ skipDefault: true }, { option: '1' }, { option: '254' }] },
    'x',
    {},
  );
  t.deepEqual(ends.request, [1, 254]);
  t.throws(() => clientOptions({ provide: [{ option: '53', value: 'x' }] }, 'x', {}), {
    message: /belongs to the protocol/,
  });
  const longest = clientOptions({ provide: [{ option: '12', value: 'x'.repeat(255) }] }, 'x', {});
  t.is(longest.provide.get(12)?.length, 255);
  t.throws(() => clientOptions({ provide: [{ option: '12', value: 'x'.repeat(256) }] }, 'x', {}), {
    message: /256 bytes where 255 fit/,
  });
});
