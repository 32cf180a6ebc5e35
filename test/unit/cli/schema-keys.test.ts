/** The schemas of conf/schema, in an independent validator: what editors underline and what they let pass. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import test from 'ava';
import { isObject } from '../../../lib/object.ts';

const conf = join(import.meta.dirname, '../../../conf');
const read = (path: string) => JSON.parse(readFileSync(join(conf, path), 'utf8')) as Record<string, unknown>;
const ajv = new Ajv2020({ strict: false, allErrors: true });
for (const name of readdirSync(join(conf, 'schema'))) ajv.addSchema(read(`schema/${name}`), name);

/** What is wrong with a configuration: the path and, of a key that is not known, its name. */
function complaints(value: unknown, schema = 'conflist.json'): string[] {
  const validate = ajv.getSchema(schema)!;
  validate(value);
  return (validate.errors ?? [])
    .filter(({ keyword }) => keyword !== 'if')
    .map(({ instancePath, message, params }) =>
      [instancePath, params.additionalProperty ?? message].join(' '),
    );
}

const samples = readdirSync(conf).filter((name) => /\.conf(?:list)?$/.test(name));
const schemaOf = (sample: Record<string, unknown>) =>
  'plugins' in sample ? 'conflist.json' : `${sample.type}.json`;

test('the samples are as the schemas want them', (t) => {
  t.true(samples.length > 15);
  for (const name of samples) t.deepEqual(complaints(read(name), schemaOf(read(name))), [], name);
});

test('a key that is misspelt is refused, wherever it stands in a sample', (t) => {
  /** Objects whose keys are names that the operator chooses, or that are up to another program. */
  const free = ['sysctl', 'capabilities', 'delegate', 'delegates', 'args', 'runtimeConfig'];
  let tried = 0;
  for (const name of samples) {
    const misspell = (value: unknown, path: string): void => {
      if (Array.isArray(value)) for (const [i, item] of value.entries()) misspell(item, `${path}/${i}`);
      if (!isObject(value)) return;
      value.misspelt = 1;
      t.deepEqual(complaints(sample, schemaOf(sample)), [`${path} misspelt`], `${name} ${path}`);
      tried++;
      delete value.misspelt;
      for (const [key, one] of Object.entries(value))
        if (!free.includes(key)) misspell(one, `${path}/${key}`);
    };
    const sample = read(name);
    misspell(sample, '');
  }
  t.true(tried > 60, `${tried} places`);
});

test('what runtimes, editors and other programs add is let pass', (t) => {
  const sample = read('10-bridge.conflist') as { plugins: Record<string, unknown>[] };
  Object.assign(sample, {
    $schema: './schema/conflist.json',
    args: { podman_labels: { a: 'b' } },
    nerdctlID: 'x',
    nerdctlLabels: {},
    'cni.dev/anything': true,
    disableCheck: true,
    disableGC: 'false',
    cniVersions: ['1.0.0', '1.1.0'],
  });
  for (const plugin of sample.plugins)
    Object.assign(plugin, {
      cniVersion: '1.1.0',
      name: 'podnet',
      prevResult: { cniVersion: '1.1.0', interfaces: [] },
      runtimeConfig: { portMappings: [], 'io.kubernetes.cri.pod-annotations': {} },
      args: { cni: { ips: [] }, other: 1 },
      capabilities: { portMappings: true },
      dns: { nameservers: ['10.0.0.1'] },
      'cni.dev/valid-attachments': [],
    });
  t.deepEqual(complaints(sample), []);
});

test('plugins and IPAM plugins of others may have any keys', (t) => {
  const others = [
    { type: 'calico', anything: { at: 'all' } },
    { type: 'bridge', ipam: { type: 'whereabouts', range: '10.0.0.0/8' } },
  ];
  t.deepEqual(complaints({ cniVersion: '1.0.0', name: 'x', plugins: others }), []);
});
