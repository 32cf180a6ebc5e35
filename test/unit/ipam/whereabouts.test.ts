import test from 'ava';
import { eachInSpite } from '../../../ipam/whereabouts/backend.ts';
import { allocateFrom } from '../../../ipam/whereabouts/kubernetes/allocate.ts';
import { IpPool } from '../../../ipam/whereabouts/kubernetes/ip-pool.ts';
import type { Objects } from '../../../ipam/whereabouts/kubernetes/objects.ts';
import { resolvePools } from '../../../ipam/whereabouts/pools.ts';
import { CniError, ErrorCode } from '../../../lib/errors.ts';

test('errors are told also when what comes next cannot be read', async (t) => {
  async function* pages() {
    yield 'a';
    yield 'b';
    throw new Error('the second page is away');
  }
  const seen: string[] = [];
  const told: string[] = [];
  const work = (one: string) => {
    seen.push(one);
    if (one === 'a') throw new Error('a cannot be released');
  };
  const options = { isFinal: () => false, warn: (message: string) => void told.push(message) };
  await t.throwsAsync(eachInSpite(pages(), work, options), { message: 'a cannot be released' });
  t.deepEqual(seen, ['a', 'b']);
  t.deepEqual(told, ['the second page is away']);
});

test.serial('an ADD that others keep from the last addresses by ranges that overlap says so', async (t) => {
  const ipam = { type: 'whereabouts', range: '10.70.0.0/24' };
  const [pool] = resolvePools(ipam);
  const range = pool!.subnet;
  const object = { ...IpPool.empty('p', range), metadata: { name: 'p', resourceVersion: '1' } };
  let reservations = 0;
  const objects = {
    pools: {
      lock: async () => ({ [Symbol.dispose]() {} }),
      read: async () => new IpPool(object),
      change: async () => true,
    },
    reservations: {
      async reserve() {
        reservations++;
        return false;
      },
    },
  } as unknown as Objects;
  const { now } = performance;
  t.teardown(() => {
    performance.now = now;
  });
  let clock = 0;
  performance.now = () => (clock += 10_000);
  const owner = { node: 'n', network: 'vlan7', containerId: 'c', ifname: 'eth0' };
  const wish = { pool: pool!, ref: { name: 'p', networkName: '' }, network: range, wanted: undefined };
  const error = await t.throwsAsync(
    allocateFrom(objects, { ipam, owner, identity: '', podref: 'default/c' }, wish, {
      ...{ id: 'c', podref: 'default/c', ifname: 'eth0' },
    }),
    { instanceOf: CniError },
  );
  t.true(reservations > 1);
  t.is(error!.code, ErrorCode.TryAgainLater);
  t.regex(error!.message, new RegExp(`^${reservations} addresses .* are taken by ranges that overlap`));
  t.regex(error!.message, /"network_name"/);
});
