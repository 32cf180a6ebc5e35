/** The DaemonSet is valid for the API server. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { DaemonSet, type IDaemonSet } from 'kubernetes-models/apps/v1/DaemonSet';
import { parse } from 'yaml';

const file = join(import.meta.dirname, '../../conf/kubernetes/daemonset.yaml');
const manifest = parse(readFileSync(file, 'utf8')) as IDaemonSet;
const template = manifest.spec!.template;

test('the manifest follows the schema of Kubernetes objects', (t) => {
  t.notThrows(() => new DaemonSet(manifest).validate());
  t.throws(() =>
    new DaemonSet({ ...manifest, spec: { ...manifest.spec!, minReadySeconds: 'soon' as never } }).validate(),
  );
});

test('its parts agree: labels with the selector, mounts with volumes', (t) => {
  t.deepEqual(template.metadata?.labels, manifest.spec!.selector.matchLabels);
  const volumes = template.spec!.volumes!.map(({ name }) => name);
  const mounts = [...template.spec!.initContainers!, ...template.spec!.containers].flatMap(
    ({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name),
  );
  t.deepEqual(mounts, volumes);
});
