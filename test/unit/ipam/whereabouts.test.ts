import test from 'ava';
import { eachInSpite } from '../../../ipam/whereabouts/backend.ts';
import { allocateFrom } from '../../../ipam/whereabouts/kubernetes/allocate.ts';
import { IpPool } from '../../../ipam/whereabouts/kubernetes/ip-pool.ts';
import type { Objects } from '../../../ipam/whereabouts/kubernetes/objects.ts';
import { resolvePools } from '../../../ipam/whereabouts/pools.ts';
import { CniError, ErrorCode } from '../../../lib/errors.ts';
import type { Address } from '../../../lib/ip.ts';

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

/** Has an ADD try a range whose addresses are all given away by ranges that overlap it. */
function addAmongOthers() {
  const ipam = { type: 'whereabouts', range: '10.70.0.0/24' };
  const [pool] = resolvePools(ipam);
  const range = pool!.subnet;
  const object = { ...IpPool.empty('p', range), metadata: { name: 'p', resourceVersion: '1' } };
  const reserved: string[] = [];
  const objects = {
    pools: {
      lock: async () => ({ [Symbol.dispose]() {} }),
      read: async () => new IpPool(object),
      change: async () => true,
    },
    reservations: {
      async reserve(_: string, address: Address) {
        reserved.push(`${address}`);
        return false;
      },
    },
  } as unknown as Objects;
  const owner = { node: 'n', network: 'vlan7', containerId: 'c', ifname: 'eth0' };
  const wish = { pool: pool!, ref: { name: 'p', networkName: '' }, network: range, wanted: undefined };
  const setting = { ipam, owner, identity: '', podref: 'default/c' };
  const own = { id: 'c', podref: 'default/c', ifname: 'eth0' };
  const outcome = allocateFrom(objects, setting, wish, own, new Map());
  return { outcome, reserved };
}

test.serial('an ADD that others keep from the last addresses by ranges that overlap says so', async (t) => {
  const { now } = performance;
  t.teardown(() => {
    performance.now = now;
  });
  let clock = 0;
  performance.now = () => (clock += 10_000);
  const { outcome, reserved } = addAmongOthers();
  const error = await t.throwsAsync(outcome, { instanceOf: CniError });
  t.true(reserved.length > 1);
  t.is(error!.code, ErrorCode.TryAgainLater);
  t.regex(error!.message, new RegExp(`^${reserved.length} addresses .* are taken by ranges that overlap`));
  t.regex(error!.message, /"network_name"/);
});

test.serial('addresses that other ranges have are passed over, each once and without a pause', async (t) => {
  // With the pauses that follow conflicts, the time that ADD has would be over before.
  const { outcome, reserved } = addAmongOthers();
  await t.throwsAsync(outcome, { message: /No address is free/ });
  t.is(new Set(reserved).size, 254);
  t.is(reserved.length, 254);
});
