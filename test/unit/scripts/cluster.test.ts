/** What can be tested of scripts/cluster without the cluster. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { loadAll, YAML11_SCHEMA } from 'js-yaml';
import * as apps from 'kubernetes-models/apps/v1';
import * as rbac from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import * as core from 'kubernetes-models/v1';
import { allAnswer, type Client, lookUp } from '../../../scripts/kubernetes/clients.ts';
import { kinds } from '../../support/kube-kinds.ts';

const manifests = join(import.meta.dirname, '../../../scripts/kubernetes/manifests');

interface KubernetesObject {
  kind: string;
  items?: KubernetesObject[];
}

const classes = { ...core, ...apps, ...rbac } as unknown as Record<
  string,
  new (
    object: KubernetesObject,
  ) => { validate(): void }
>;

for (const file of readdirSync(manifests))
  test(`${file} follows the schema of Kubernetes objects`, (t) => {
    const documents = loadAll(readFileSync(join(manifests, file), 'utf8'), {
      schema: YAML11_SCHEMA,
    }) as KubernetesObject[];
    const objects = documents.flatMap((object) => object.items ?? [object]);
    t.true(objects.length > 0);
    const isCustom = ({ kind }: KubernetesObject) => kinds.some((one) => one.schema && one.kind === kind);
    for (const object of objects)
      if (!isCustom(object)) t.notThrows(() => new classes[object.kind]!(object).validate(), object.kind);
  });

/** A client that always gets the next of the answers. */
function answering(...answers: string[]): Client {
  return {
    name: 'client',
    run: async (argv) => {
      const stdout = answers.shift();
      return { argv, exit: stdout === undefined ? 1 : 0, stdout: stdout ?? '', stderr: '' };
    },
  };
}

test('what nslookup says is read: addresses, names, and that there are none', async (t) => {
  const server = 'Server:\t\t10.96.0.10\nAddress:\t10.96.0.10#53\n\n';
  const two = 'Name:\tm.svc\nAddress: 10.244.1.2\nName:\tm.svc\nAddress: 10.244.0.3\n\n';
  t.deepEqual(await lookUp(answering(server + two), 'm'), ['10.244.0.3', '10.244.1.2']);
  const pointer = '5.0.96.10.in-addr.arpa\tname = web.default.svc.cluster.local.\n\n';
  t.deepEqual(await lookUp(answering(pointer), '10.96.0.5'), ['web.default.svc.cluster.local']);
  t.deepEqual(await lookUp(answering(), 'absent'), []);
});

test('all answer only if each pod does, no connection fails, and nobody else answers', async (t) => {
  const pods = ['a', 'b'].map((name) => ({ name, address: '10.244.0.2', node: 'node1' }));
  t.true(await allAnswer(answering('a 192.0.2.1\n', 'a 192.0.2.1\n', 'b 192.0.2.1\n'), 'web', pods));
  t.false(await allAnswer(answering('a 192.0.2.1\n'), 'web', pods));
  t.false(await allAnswer(answering('a 192.0.2.1\n', 'c 192.0.2.1\n', 'b 192.0.2.1\n'), 'web', pods));
  t.false(await allAnswer(answering(...Array(200).fill('a 192.0.2.1\n')), 'web', pods));
});
