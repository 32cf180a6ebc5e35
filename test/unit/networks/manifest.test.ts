/** conf/kubernetes/multus.yaml is what Kubernetes takes. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { loadAll } from 'js-yaml';
import * as extensions from 'kubernetes-models/apiextensions.k8s.io/v1';
import * as rbac from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import * as core from 'kubernetes-models/v1';

test('each object of the manifest is one of its kind', (t) => {
  const text = readFileSync(join(import.meta.dirname, '../../../conf/kubernetes/multus.yaml'), 'utf8');
  const objects = loadAll(text) as { kind: string }[];
  const classes = { ...core, ...rbac, ...extensions } as unknown as Record<
    string,
    new (
      object: object,
    ) => { validate(): void }
  >;
  t.deepEqual(
    objects.map(({ kind }) => kind),
    ['CustomResourceDefinition', 'ClusterRole', 'ServiceAccount', 'ClusterRoleBinding', 'Secret'],
  );
  for (const object of objects) t.notThrows(() => new classes[object.kind]!(object).validate(), object.kind);
  t.throws(() =>
    new rbac.ClusterRole({ ...objects[1], rules: [{ verbs: 'get' as never }] } as never).validate(),
  );
});
