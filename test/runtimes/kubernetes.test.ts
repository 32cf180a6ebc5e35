/** The DaemonSet: valid for the API server, and its init container really installs the suite on a node. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { DaemonSet, type IDaemonSet } from 'kubernetes-models/apps/v1/DaemonSet';
import { parse } from 'yaml';
import { pluginNames, suites } from '../support/plugin.ts';
import { makeNode } from './support/node.ts';
import { Podman } from './support/podman.ts';

const file = join(import.meta.dirname, '../../conf/kubernetes/daemonset.yaml');
const manifest = parse(readFileSync(file, 'utf8')) as IDaemonSet;
const template = manifest.spec!.template;
const names = pluginNames(suites.ours).sort();

test('the manifest follows the schema of Kubernetes objects', (t) => {
  t.notThrows(() => new DaemonSet(manifest).validate());
  t.throws(() =>
    new DaemonSet({ ...manifest, spec: { ...manifest.spec!, minReadySeconds: 'soon' as never } }).validate(),
  );
});

test('labels match the selector, and mounts have volumes', (t) => {
  t.deepEqual(template.metadata?.labels, manifest.spec!.selector.matchLabels);
  const volumes = template.spec!.volumes!.map(({ name }) => name);
  const mounts = [...template.spec!.initContainers!, ...template.spec!.containers].flatMap(
    ({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name),
  );
  t.deepEqual(mounts, volumes);
});

test('its init container installs every plugin on the node, and replaces them when it runs again', async (t) => {
  const node = await makeNode(t);
  const podman = await Podman.prepare(node);
  const [install] = template.spec!.initContainers!;
  const [mount] = install!.volumeMounts!;
  const volume = template.spec!.volumes!.find(({ name }) => name === mount!.name);
  t.is(volume!.hostPath!.path, '/opt/cni/bin');
  // Stand-ins: a directory of the node for /opt/cni/bin, the machine's libraries and this build for the
  // image.
  const binDir = '/run/opt/cni/bin';
  const rootfs = '/run/image';
  await node.run(['mkdir', '-p', binDir, rootfs]);
  const { readOnlyRootFilesystem, allowPrivilegeEscalation, capabilities, runAsUser } =
    install!.securityContext!;
  const runInitContainer = () =>
    podman.run(
      'run',
      '--rm',
      '--network=none',
      `--cgroup-parent=${node.cgroup}`,
      `--user=${runAsUser}`,
      `--read-only=${readOnlyRootFilesystem}`,
      ...capabilities!.drop!.map((capability) => `--cap-drop=${capability}`),
      ...(allowPrivilegeEscalation ? [] : ['--security-opt=no-new-privileges']),
      `--memory=${install!.resources!.limits!.memory}`.replace('Mi', 'm'),
      `--volume=${binDir}:${mount!.mountPath}`,
      ...['/lib', '/lib64', '/usr/lib'].map((path) => `--volume=${path}:${path}:ro`),
      `--volume=${suites.ours}:/usr/lib/cni:ro`,
      '--rootfs',
      rootfs,
      ...install!.command!,
    );
  await runInitContainer();
  t.deepEqual(pluginNames(node.file(binDir)).sort(), names);
  node.write(`${binDir}/foreign`, 'a plugin of somebody else');
  t.regex(await runInitContainer(), /bridge/);
  t.deepEqual(pluginNames(node.file(binDir)).sort(), [...names, 'foreign'].sort());
  const versions = await node.run([`${binDir}/bridge`], {
    stdin: '{"cniVersion": "1.1.0"}',
    env: { CNI_COMMAND: 'VERSION' },
  });
  t.true((JSON.parse(versions) as { supportedVersions: string[] }).supportedVersions.includes('1.1.0'));
});
