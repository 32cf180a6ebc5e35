/** The sample networks of conf/, together. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Prefix } from '../../lib/ip.ts';
import { isObject } from '../../lib/object.ts';

const directory = join(import.meta.dirname, '../../conf');
const files = readdirSync(directory).filter((name) => /\.conf(list)?$/.test(name));

/** Default ranges of clusters, by whose default they are. */
const ofClusters = {
  'Services of kubeadm': '10.96.0.0/12',
  'pods of k3s': '10.42.0.0/16',
  'Services of k3s': '10.43.0.0/16',
  'pods of flannel': '10.244.0.0/16',
};

/** All subnets of a configuration, wherever they are. */
function subnetsIn(value: unknown): Prefix[] {
  if (Array.isArray(value)) return value.flatMap(subnetsIn);
  if (!isObject(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    ['subnet', 'range', 'address'].includes(key) && typeof inner === 'string'
      ? [Prefix.parse(inner)]
      : subnetsIn(inner),
  );
}

const subnets = files.flatMap((file) =>
  subnetsIn(JSON.parse(readFileSync(join(directory, file), 'utf8'))).map((subnet) => ({ file, subnet })),
);

test('no two samples give away the same addresses', (t) => {
  t.true(subnets.length > 20);
  for (const [i, one] of subnets.entries())
    for (const other of subnets.slice(0, i))
      t.false(one.subnet.overlaps(other.subnet), `${one.file} and ${other.file}: ${one.subnet}`);
});

for (const [what, range] of Object.entries(ofClusters))
  test(`no sample gives away addresses of the ${what}`, (t) => {
    const taken = subnets.filter(({ subnet }) => subnet.overlaps(Prefix.parse(range)));
    t.deepEqual(
      taken.map(({ file, subnet }) => `${file}: ${subnet}`),
      [],
    );
  });
