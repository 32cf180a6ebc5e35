/** Quarantines in IPPool objects, of which there may be many. */

import test from 'ava';
import { IpPool, type PoolObject } from '../../../ipam/whereabouts/kubernetes/ip-pool.ts';
import type { Objects } from '../../../ipam/whereabouts/kubernetes/objects.ts';
import { releaseExpired, releaseFrom } from '../../../ipam/whereabouts/kubernetes/release.ts';
import type { Address } from '../../../lib/ip.ts';

const ref = { name: 'p', networkName: '' };
const annotation = 'cni-plugins-ts/quarantine';
const owner = { node: 'n', network: 'net', containerId: 'own', ifname: 'eth0' };

/** A pool in which a container has the first address, and others are in quarantine. */
function poolWith(count: number, until: number) {
  const offsets = Array.from({ length: count }, (_, i) => `${i + 2}`);
  const id = 'c'.repeat(64);
  const entry = { id, podref: 'default/c', ifname: 'eth0' };
  const allocations: Record<string, object> = { 1: { ...entry, id: 'own' } };
  for (const offset of offsets) allocations[offset] = entry;
  const waits = Object.fromEntries(offsets.map((offset) => [offset, { id, until }]));
  const state = { allocations, annotation: JSON.stringify(waits) };
  const released: string[] = [];
  /** Sizes of the changes of the pool, releases of reservations, and the lock, in their order. */
  const steps: (number | 'lock' | 'unlock' | 'release')[] = [];
  const objects = {
    pools: {
      async lock() {
        steps.push('lock');
        return { [Symbol.dispose]: () => void steps.push('unlock') };
      },
      async read() {
        const metadata = { name: 'p', annotations: { [annotation]: state.annotation } };
        return new IpPool({ metadata, spec: { range: '10.70.0.0/16', allocations: state.allocations } });
      },
      async change(pool: IpPool, changes: Parameters<IpPool['patch']>[0]) {
        const patch = pool.patch(changes) as Required<PoolObject>;
        for (const [offset, value] of Object.entries(patch.spec.allocations as Record<string, object | null>))
          if (value) state.allocations[offset] = value;
          else delete state.allocations[offset];
        state.annotation = patch.metadata.annotations?.[annotation] ?? '{}';
        steps.push(changes.length);
        return true;
      },
    },
    reservations: {
      async release(_: string, address: Address) {
        released.push(`${address}`);
        steps.push('release');
      },
    },
  } as unknown as Objects;
  const waiting = () => Object.keys(JSON.parse(state.annotation) as object);
  return { objects, state, released, steps, waiting };
}

const later = () => Math.ceil(Date.now() / 1000) + 600;
const none = (message: string) => {
  throw new Error(message);
};

test('a release is entered first, and then gives back some whose quarantine is over', async (t) => {
  const { objects, state, released, steps, waiting } = poolWith(30, 1);
  await releaseFrom(objects, ref, owner, 600, none);
  t.deepEqual(steps, ['lock', 1, 'unlock', 'release', 'release', 'release', 'release', 'release', 5]);
  t.false(released.includes('10.70.0.1'));
  t.is(Object.keys(state.allocations).length, 26);
  t.true(waiting().includes('1'));
  // There is nothing to release any more.
  await releaseFrom(objects, ref, owner, 600, none);
  t.is(released.length, 5);
});

test('a release is done, whatever fails of those whose quarantine is over', async (t) => {
  for (const quarantine of [0, 600]) {
    const { objects, released, steps, waiting } = poolWith(3, 1);
    const { release } = objects.reservations;
    objects.reservations.release = async (...[network, address, ...more]: Parameters<typeof release>) => {
      if (`${address}` === '10.70.0.3') throw new Error('The API refuses that');
      await release(network, address, ...more);
    };
    await releaseFrom(objects, ref, owner, quarantine, none);
    t.is(released.includes('10.70.0.1'), quarantine === 0);
    t.deepEqual(waiting(), [...(quarantine === 0 ? [] : ['1']), '2', '3', '4']);
    t.is(steps.filter((step) => typeof step === 'number').length, 1);
  }
});

test('others who change the pool have a release try again, but not the rest', async (t) => {
  const { objects, released, steps, waiting } = poolWith(3, 1);
  const { change } = objects.pools;
  let changes = 0;
  objects.pools.change = async (...args) => ([1, 3].includes(++changes) ? false : await change(...args));
  await releaseFrom(objects, ref, owner, 600, none);
  t.is(changes, 3);
  t.is(released.length, 3);
  t.deepEqual(steps.slice(0, 3), ['lock', 1, 'unlock']);
  t.deepEqual(waiting(), ['1', '2', '3', '4']);
});

test('a release makes room for its quarantine with those that are over', async (t) => {
  const { objects, state, released, steps, waiting } = poolWith(2263, 1);
  t.true(state.annotation.length > 200 * 1024);
  await releaseFrom(objects, ref, owner, 600, none);
  t.deepEqual(steps.slice(0, 8), ['lock', ...Array(5).fill('release'), 6, 'unlock']);
  t.false(released.includes('10.70.0.1'));
  t.true(waiting().includes('1'));
});

test('a release leaves alone what waits, and without a quarantine gives back its own', async (t) => {
  const { objects, released, waiting } = poolWith(3, later());
  await releaseFrom(objects, ref, owner, 600, none);
  t.deepEqual(released, []);
  await releaseFrom(objects, ref, owner, 0, none);
  t.deepEqual(released, ['10.70.0.1']);
  t.is(waiting().length, 3);
});

test('a release does without a quarantine when there are too many of them, and says so', async (t) => {
  const { objects, state, released } = poolWith(2500, later());
  const { length } = state.annotation;
  t.true(length > 200 * 1024);
  const told: string[] = [];
  await releaseFrom(objects, ref, owner, 600, (message) => void told.push(message));
  t.deepEqual(released, ['10.70.0.1']);
  t.false('1' in state.allocations);
  t.is(state.annotation.length, length);
  t.is(told.length, 1);
  t.regex(told[0]!, /IPPool "p" has no room for another quarantine.* 10\.70\.0\.1 can go/);
});

test('GC gives back what is over in steps, between which others get at the pool', async (t) => {
  const { objects, state, steps } = poolWith(120, 1);
  await releaseExpired(objects, ref);
  const changes = steps.filter((step) => step !== 'release');
  t.deepEqual(changes, ['lock', 50, 'unlock', 'lock', 50, 'unlock', 'lock', 20, 'unlock']);
  t.deepEqual(Object.keys(state.allocations), ['1']);
  t.is(state.annotation, '{}');
});
