import test from 'ava';
import { readStoredLease } from '../../../ipam/dhcp/stored-lease.ts';

const lease = {
  boot: 'b',
  owner: { containerId: 'c', network: 'n', ifname: 'eth0', netns: '/run/netns/c' },
  options: { clientId: [0, 99], request: [1, 3], provide: [[12, [119, 101, 98]]] },
  server: '10.99.255.254',
  times: { renewAt: 1, rebindAt: 2, expiresAt: 3 },
  result: { cniVersion: '1.1.0' },
};

test('a lease is read as it was written', (t) => {
  const { boot, owner, clientId, request, provide, server, times } = readStoredLease(JSON.stringify(lease));
  t.like(
    { boot, owner, clientId, request, server, times },
    {
      boot: 'b',
      owner: lease.owner,
      clientId: [0, 99],
      request: [1, 3],
      server: '10.99.255.254',
      times: lease.times,
    },
  );
  t.deepEqual(provide, new Map([[12, Uint8Array.of(119, 101, 98)]]));
});

test('an option that is no byte, or whose value is not made of bytes, is refused by its place', (t) => {
  for (const [provide, place] of [
    [[[256, [1]]], /options\.provide\[0\]/],
    [
      [
        [12, [1]],
        [12, [256]],
      ],
      /options\.provide\[1\]/,
    ],
    [[[12, 'web']], /options\.provide\[0\]/],
  ] as const) {
    const text = JSON.stringify({ ...lease, options: { ...lease.options, provide } });
    t.throws(() => readStoredLease(text), { message: place });
  }
});
