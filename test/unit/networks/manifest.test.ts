/** The manifests in conf/kubernetes are what Kubernetes accepts. */

import test from 'ava';
import * as extensions from 'kubernetes-models/apiextensions.k8s.io/v1';
import * as rbac from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import * as core from 'kubernetes-models/v1';
import { manifestOf, plugins } from '../../support/kube-kinds.ts';

const classes = { ...core, ...rbac, ...extensions } as unknown as Record<
  string,
  new (
    object: object,
  ) => { validate(): void }
>;

for (const plugin of plugins)
  test(`each object of the manifest of ${plugin} is one of its kind`, (t) => {
    const objects = manifestOf(plugin);
    t.deepEqual(
      [...new Set(objects.map(({ kind }) => kind))],
      ['CustomResourceDefinition', 'ClusterRole', 'ServiceAccount', 'ClusterRoleBinding', 'Secret'],
    );
    for (const object of objects)
      t.notThrows(() => new classes[object.kind]!(object).validate(), object.kind);
  });

test('an object that is not one of its kind is found', (t) => {
  const role = manifestOf('multus').find(({ kind }) => kind === 'ClusterRole')!;
  t.throws(() => new rbac.ClusterRole({ ...role, rules: [{ verbs: 'get' as never }] } as never).validate());
});
