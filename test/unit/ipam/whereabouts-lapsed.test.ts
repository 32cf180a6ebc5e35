/** Reservations whose holder's quarantine is over, in the pool of a range that overlaps. */

import test from 'ava';
import { allocateFrom } from '../../../ipam/whereabouts/kubernetes/allocate.ts';
import { IpPools } from '../../../ipam/whereabouts/kubernetes/ip-pools.ts';
import type { Objects } from '../../../ipam/whereabouts/kubernetes/objects.ts';
import { Reservations } from '../../../ipam/whereabouts/kubernetes/reservations.ts';
import { resolvePools } from '../../../ipam/whereabouts/pools.ts';
import type { KubernetesClient } from '../../../lib/kubernetes/client.ts';
import { KubernetesError } from '../../../lib/kubernetes/error.ts';
import { isObject } from '../../../lib/object.ts';

type Value = Record<string, unknown>;
const kinds = '/apis/whereabouts.cni.cncf.io/v1alpha1/namespaces/kube-system';
const own = { id: 'own', podref: 'default/own', ifname: 'eth0' };
const later = () => Math.ceil(Date.now() / 1000) + 600;

function merge(old: Value, patch: Value): Value {
  const merged = { ...old };
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete merged[key];
    else merged[key] = isObject(value) ? merge(isObject(old[key]) ? old[key] : {}, value) : value;
  return merged;
}

/** An API that knows what the functions ask. @param beforeList is called when pools are about to be listed. */
function apiOf(beforeList: (objects: Map<string, Value>, times: number) => void = () => {}) {
  const objects = new Map<string, Value>();
  const found = (path: string) => {
    const object = objects.get(path);
    if (!object) throw new KubernetesError('not-found', path);
    return object;
  };
  let lists = 0;
  const client = {
    async create(path: string, body: Value & { metadata: { name: string } }) {
      const at = `${path}/${body.metadata.name}`;
      if (objects.has(at)) throw new KubernetesError('conflict', at);
      objects.set(at, body);
    },
    read: async (path: string) => found(path),
    patch: async (path: string, body: Value) => void objects.set(path, merge(found(path), body)),
    remove: async (path: string) => void objects.delete(path),
    async list(path: string) {
      beforeList(objects, ++lists);
      return { items: [...objects].flatMap(([at, one]) => (at.startsWith(`${path}/`) ? [one] : [])) };
    },
  } as unknown as KubernetesClient;
  const lock = async () => ({ [Symbol.dispose]() {} });
  const pools = Object.assign(new IpPools(client, 'kube-system', ''), { lock });
  const reservations = new Reservations(client, 'kube-system', pools);
  const api = { client, namespace: 'kube-system', pools, reservations } as unknown as Objects;
  return { objects, api, lists: () => lists };
}

/** Writes a pool in which each address, by its last byte, has a pod. @param waits the ends of quarantines. */
function seedPool(objects: Map<string, Value>, name: string, lasts: number[], waits: Record<number, number>) {
  const id = (last: number) => `${name}-${last}`;
  const entries = lasts.map((last) => {
    objects.set(`${kinds}/overlappingrangeipreservations/10.70.0.${last}`, {
      metadata: { name: `10.70.0.${last}` },
      spec: { containerid: id(last), podref: `default/${id(last)}`, ifname: 'eth0' },
    });
    return [last, { id: id(last), podref: `default/${id(last)}`, ifname: 'eth0' }];
  });
  const quarantine = Object.entries(waits).map(([last, until]) => [last, { id: id(Number(last)), until }]);
  const annotations = { 'cni-plugins-ts/quarantine': JSON.stringify(Object.fromEntries(quarantine)) };
  objects.set(`${kinds}/ippools/${name}`, {
    metadata: { name, annotations },
    spec: { range: '10.70.0.0/24', allocations: Object.fromEntries(entries) },
  });
}

/** Adds a pod to a range of two addresses, 10.70.0.1 and 10.70.0.2. */
async function add(api: Objects): Promise<string> {
  const ipam = { type: 'whereabouts', range: '10.70.0.0/30' };
  const [pool] = resolvePools(ipam);
  const owner = { node: 'n', network: 'net', containerId: 'own', ifname: 'eth0' };
  const wish = {
    ...{ pool: pool!, ref: { name: 'small', networkName: '' } },
    ...{ network: pool!.subnet, wanted: undefined },
  };
  const setting = { ipam, owner, identity: '', podref: 'default/own' };
  return `${(await allocateFrom(api, setting, wish, own, new Map())).address}`;
}

test('an ADD takes over the reservation of an address whose quarantine is over in another pool', async (t) => {
  const { objects, api, lists } = apiOf();
  seedPool(objects, 'large', [1, 2], { 1: 1, 2: later() });
  t.is(await add(api), '10.70.0.1');
  t.like(objects.get(`${kinds}/overlappingrangeipreservations/10.70.0.1`), {
    spec: { containerid: 'own', podref: 'default/own' },
  });
  t.true(lists() <= 2);
});

test('a reservation stays whose address any pool has still, or has again', async (t) => {
  for (const [what, waits] of [
    ['the quarantine is not over', { 1: later(), 2: later() }],
    ['the containers live', {}],
  ] as const) {
    const { objects, api, lists } = apiOf();
    seedPool(objects, 'large', [1, 2], waits);
    await t.throwsAsync(add(api), { message: /No address is free/ }, what);
    t.is(lists(), 1);
  }
  const { objects, api } = apiOf();
  seedPool(objects, 'living', [1], {});
  seedPool(objects, 'large', [1, 2], { 1: 1, 2: later() });
  await t.throwsAsync(add(api), { message: /No address is free/ }, 'another pool has it');
});

test.serial('an address that a pool has again since pools were listed is not taken', async (t) => {
  const { random } = Math;
  t.teardown(() => {
    Math.random = random;
  });
  // The addresses are tried from the first one on.
  Math.random = () => 0;
  const { objects, api, lists } = apiOf((all, times) => {
    if (times === 2) seedPool(all, 'large', [1, 2], {});
  });
  seedPool(objects, 'large', [1, 2], { 2: 1 });
  await t.throwsAsync(add(api), { message: /No address is free/ });
  t.is(lists(), 2);
});

test('a reservation that no pool has an entry for is left alone, by one list of pools', async (t) => {
  const { objects, api, lists } = apiOf();
  seedPool(objects, 'large', [1, 2], { 1: 1, 2: 1 });
  objects.delete(`${kinds}/ippools/large`);
  await t.throwsAsync(add(api), { message: /No address is free/ });
  t.is(lists(), 1);
});
