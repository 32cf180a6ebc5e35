/**
 * The DaemonSet: valid for the API server; its containers really install the suite on a node and run its agent.
 * Runs once: it starts an agent itself.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { load } from 'js-yaml';
import { DaemonSet, type IDaemonSet } from 'kubernetes-models/apps/v1/DaemonSet';
import { until } from '../support/observe.ts';
import { pluginNames, runPlugin, suites } from '../support/plugin.ts';
import { installPatience } from '../support/run.ts';
import { makeNode } from './support/node.ts';
import { Podman } from './support/podman.ts';

const file = join(import.meta.dirname, '../../conf/kubernetes/daemonset.yaml');
const manifest = load(readFileSync(file, 'utf8')) as IDaemonSet;
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
  t.deepEqual([...new Set(mounts)], volumes);
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
  // The owner that some tools for setting up nodes leave.
  await node.run(['chown', '1000:1000', binDir]);
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
      ...capabilities!.add!.map((capability) => `--cap-add=${capability}`),
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

test('the agent leaves nothing of the container between itself and the node', (t) => {
  const [agent, ...others] = template.spec!.containers;
  t.deepEqual(others, []);
  const { hostPID, hostNetwork, initContainers, terminationGracePeriodSeconds } = template.spec!;
  t.true(hostPID && hostNetwork && agent!.securityContext!.privileged);
  t.is(agent!.image, initContainers![0]!.image);
  const serve = ['/opt/cni/bin/cni', 'agent'];
  t.deepEqual(agent!.command, ['nsenter', '--target', '1', '--mount', '--net', '--', ...serve]);
  for (const probe of [agent!.readinessProbe!, agent!.livenessProbe!]) {
    t.deepEqual(probe.exec!.command, [...serve, 'status']);
    t.true(probe.timeoutSeconds! > 5, '"status" is to say itself that the agent hangs');
  }
  const unit = readFileSync(join(import.meta.dirname, '../../conf/systemd/cni-agent.service'), 'utf8');
  t.is(/^TimeoutStopSec=(.*)$/m.exec(unit)![1], `${terminationGracePeriodSeconds}`);
});

test('from its container, the agent serves the runtime of the node, until the container is stopped', async (t) => {
  const node = await makeNode(t);
  const podman = await Podman.prepare(node);
  const [agent] = template.spec!.containers;
  await node.run(['mkdir', '-p', '/run/image', '/run/cni']);
  await node.run(['mount', '-t', 'tmpfs', 'tmpfs', '/opt']);
  await node.run([join(suites.ours, 'cni'), 'install', '--bin-dir', '/opt/cni/bin'], {
    timeout: installPatience,
  });
  const mounts = agent!.volumeMounts!.map(({ name, mountPath }) => {
    const { hostPath } = template.spec!.volumes!.find((volume) => volume.name === name)!;
    return `--volume=${hostPath!.path}:${mountPath}:ro`;
  });
  // With --pid=host, process 1 is the init of the node.
  const options = ['--pid=host', '--network=host', '--privileged', '--read-only', ...mounts];
  const libraries = ['/lib', '/lib64', '/usr/lib', '/usr/bin'].map((path) => `--volume=${path}:${path}:ro`);
  const image = ['--rootfs', '/run/image', ...agent!.command!];
  await podman.runContainer('agent', [...options, ...libraries], image);
  const probe = () => podman.run('exec', 'agent', ...agent!.readinessProbe!.exec!.command!);
  await until('it is ready', () =>
    probe().then(
      () => true,
      () => false,
    ),
  );

  const pod = await node.addPod();
  const config = { cniVersion: '1.1.0', name: 'podnet', type: 'bridge', bridge: 'br0', ipMasq: true };
  const ipam = { type: 'host-local', subnet: '10.1.0.0/24' };
  const added = await runPlugin(node, 'bridge', 'ADD', {
    pod,
    config: { ...config, ipam },
    path: ['/opt/cni/bin'],
  });
  t.is(added.exit, 0, added.stdout);
  t.regex(
    await node.run(['iptables-save', '-t', 'nat']),
    /podnet/,
    "with the node's iptables, among its rules",
  );
  t.regex(await probe(), /^bridge +ADD +1 +0 /m);
  t.regex(await probe(), / 0 left to the executable/);

  await podman.run('stop', '--time', '30', 'agent');
  t.is(await podman.run('inspect', '--format', '{{.State.ExitCode}}', 'agent'), '0', 'it ended by itself');
  const output = await node.tryRun(['/opt/cni/bin/cni', 'agent', 'status']);
  t.regex(output.stderr, /No agent answers/);
});
