/** What `cni gc`, and the commands that share its view of the host, take for orphaned. */

import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import type { Conflist } from '../support/chain.ts';
import { command } from '../support/command.ts';
import { bridged, examine, hostLocal, network } from '../support/doctor.ts';
import type { Host } from '../support/host.ts';
import { addresses } from '../support/observe.ts';
import { makeOperator, type Operator } from '../support/operator.ts';
import { suites } from '../support/plugin.ts';
import { interfacesOf, makeHostWithNetworks, named, several, writeNetworks } from '../support/several.ts';

test('pods that a shell in another mount namespace does not see are not taken for orphaned', async (t) => {
  const on = await makeOperator(t, [bridged]);
  const script = `unshare --pid --fork --kill-child --mount-proc sh -ec '
    ln -s /run /run/absolute
    unshare --mount --propagation private sleep 300 > /dev/null &
    shell=$!
    until test "$(readlink /proc/$shell/ns/mnt)" != "$(readlink /proc/self/ns/mnt)"; do sleep 0.05; done
    ip netns add late
    cni add net /run/absolute/netns/late > /dev/null
    within() { nsenter --mount=/proc/$shell/ns/mnt "$@"; }
    for command in list doctor "doctor --fix" repair gc "gc --all"; do
      code=0; within cni $command > /run/said 2>&1 || code=$?
      echo "$command: $code"; cat /run/said
    done
    ls /var/lib/cni/networks/net
    ip netns exec late ip -brief address show dev eth0
    within nsenter --target 1 --mount -- cni gc
    ip netns del late
    within cni gc
    kill $shell'`;
  const output = await on.sh(script, 300_000);
  const said = output.match(/^.*\/run\/absolute\/netns\/late" \(1 of 1\).* nsenter --target 1 --mount/gm);
  t.is(said?.length, 6, output);
  for (const command of ['list', 'doctor', 'doctor --fix', 'repair', 'gc', 'gc --all'])
    t.true(output.includes(`${command}: 1\nError: This process`), `${command}: ${output}`);
  t.regex(output, /^10\.5\.0\.2$[\s\S]*^eth0@\S+ +UP +10\.5\.0\.2\/24/m);
  t.deepEqual(output.match(/^\d+ attachments? removed.*/gm), [
    '0 attachments removed, 1 kept.',
    '1 attachment removed, 0 kept.',
  ]);
});

/** Addresses that host-local has allocated. */
const reservedIn = async (host: Host, network: string) =>
  (await host.run(['ls', `/var/lib/cni/networks/${network}`])).match(/^10\..*$/gm) ?? [];

const manifold = several('multus', { clusterNetwork: 'pods', defaultNetworks: ['storage'] });
const recordOf = (network: string) => `/var/lib/cni/results/${network}-$id-eth0`;

for (const [what, lose] of [
  ['nothing is saved any more', 'rm /var/lib/cni/multus/$id'],
  ['what is saved is torn', 'echo "[{" > /var/lib/cni/multus/$id'],
  ['the runtime’s record is torn', `echo { > ${recordOf('alone')}`],
  [
    'the runtime’s record is a bare result, as older releases of libcni wrote',
    `echo '{"cniVersion":"0.3.1","ips":[]}' > ${recordOf('alone')}`,
  ],
  [
    'both are torn',
    `echo { > ${recordOf('several')}; echo { > ${recordOf('alone')}; echo { > /var/lib/cni/multus/$id`,
  ],
] as const)
  test(`gc keeps what a living pod has though ${what}`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const alone = { ...named[2]!, name: 'alone' };
    writeNetworks(host, [...named, manifold, alone]);
    const cni = (...args: string[]) =>
      host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, CNI_IFNAME: 'eth0' } });
    const ids = async () =>
      (
        await host.run(['find', '/var/lib/cni/multus', '-type', 'f', '-maxdepth', '1', '-printf', '%f'])
      ).trim();
    const pod = await host.addPod();
    t.is((await cni('add', 'several', pod.netns)).exit, 0);
    const id = await ids();
    const second = await host.addPod();
    await host.run(['ip', 'link', 'set', 'up0', 'up']);
    t.is((await cni('add', 'alone', second.netns)).exit, 0);
    const aloneId = (await host.run(['ls', '/var/lib/cni/results'])).match(/^alone-(.*)-eth0$/m)![1]!;
    const present = async () => [
      await Promise.all(['pods', 'storage', 'alone'].map((name) => reservedIn(host, name))),
      await addresses(pod, 'eth0'),
      await addresses(pod, 'net1'),
      await addresses(second, 'eth0'),
    ];
    const before = await present();
    t.deepEqual(before[0], [['10.41.0.2'], ['10.41.1.2'], ['10.41.2.2']]);

    const script = lose.replaceAll('alone-$id', `alone-${aloneId}`).replaceAll('$id', id);
    await host.run(['sh', '-ec', script]);
    // Something left by a container that is really gone.
    await host.run(['sh', '-c', "printf 'lost\\r\\neth0' > /var/lib/cni/networks/pods/10.41.0.77"]);
    const { exit, stdout, stderr } = await cni('gc', '--trace');
    t.is(exit, 1, stdout + stderr);
    t.deepEqual(stdout.match(/^Removed .*/gm), [
      'Removed lost eth0: 10.41.0.77 (address reserved, but no runtime knows of it)',
    ]);
    t.deepEqual(await present(), before);
    t.regex(stderr, /the plugins do not search for more/);
    t.notRegex(stderr, /^GC /m);
    t.notRegex((await cni('list')).stdout, /orphaned/);
    const records = JSON.parse((await cni('doctor', '-o', 'json')).stdout).checks.find(
      (one: { id: string }) => one.id === 'records',
    );
    for (const { fixable, fix } of records.findings) {
      t.false(fixable);
      t.regex(fix, /^Have the runtime delete the container/);
    }
  });

test('gc detaches each container with the configuration that it was attached with', async (t) => {
  const host = await makeHostWithNetworks(t);
  await host.run(['ip', 'link', 'set', 'up0', 'up']);
  const [pods, storage] = named as [Conflist, Conflist];
  const ipam = (dataDir: string) => ({ ...(storage.plugins[0]!.ipam as object), dataDir });
  const storageIn = (dataDir: string) => ({
    ...storage,
    plugins: [{ ...storage.plugins[0]!, ipam: ipam(dataDir) }],
  });
  writeNetworks(host, [pods, storageIn('/var/lib/cni/first'), manifold]);
  const cni = (...args: string[]) => host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours } });
  const gone = [await host.addPod(), await host.addPod()];
  t.is((await cni('add', 'several', gone[0]!.netns)).exit, 0);
  t.is((await cni('add', 'storage', gone[1]!.netns)).exit, 0);
  // As with a definition of the same name in another namespace, or an edited file.
  writeNetworks(host, [pods, storageIn('/var/lib/cni/second'), manifold]);
  const living = await host.addPod();
  t.is((await cni('add', 'storage', living.netns)).exit, 0);
  for (const pod of gone) await pod.remove();
  const reservations = async () =>
    (await host.run(['sh', '-c', 'ls -d /var/lib/cni/*/storage/10.*'])).trim().split('\n');
  t.deepEqual(await reservations(), [
    ...['/var/lib/cni/first/storage/10.41.1.2', '/var/lib/cni/first/storage/10.41.1.3'],
    '/var/lib/cni/second/storage/10.41.1.2',
  ]);
  const { exit, stdout, stderr } = await cni('gc');
  t.is(exit, 0, stdout + stderr);
  t.is(stdout.match(/^Removed /gm)?.length, 4, stdout);
  t.deepEqual(await reservations(), ['/var/lib/cni/second/storage/10.41.1.2']);
});

test('gc removes the orphans of a host whose configurations are gone', async (t) => {
  const on = await makeOperator(t, [bridged, { ...bridged, name: 'other' }]);
  for (const name of ['net', 'other', 'net']) await (await on.attach(name)).remove();
  await on.sh('rm -r /etc/cni/net.d');
  const { exit, stdout, stderr } = await on.tryCni(['gc']);
  t.is(exit, 0, stdout + stderr);
  t.is(stdout.match(/^Removed .*its network namespace is gone\)$/gm)?.length, 3, stdout);
  t.regex(stderr, /The directory "\/etc\/cni\/net\.d" does not exist/);
  t.is(await on.sh('find /var/lib/cni/results /var/lib/cni/networks -name "*10.5*" -o -name "*eth0"'), '');
  const again = await on.tryCni(['gc']);
  t.deepEqual([again.exit, again.stdout], [0, 'This host has no networks.\n']);
});

const plain = network('net', { type: 'bridge', bridge: 'br0', ipam: hostLocal('10.5.0.0/24') });

/** Makes the only container of {@link plain} that was attached by hand one of a runtime, by its ID. */
const takeOver = (on: Operator, id: string, ip: string) =>
  on.sh(`cd /var/lib/cni; for record in results/net-cnitool-*; do
    byHand=\${record#results/net-}; byHand=\${byHand%-eth0}
    sed -i "s/$byHand/${id}/g" $record networks/net/${ip}; mv $record results/net-${id}-eth0; done`);

test('gc keeps what belongs to containers whose records are elsewhere, until they are gone', async (t) => {
  const on = await makeOperator(t, [
    bridged,
    network('direct', { type: 'ptp', ipMasq: true, ipam: hostLocal('10.6.0.0/24') }),
    network('side', { type: 'macvlan', master: 'up0', ipam: hostLocal('10.7.0.0/24') }),
  ]);
  await on.sh('ip link add up0 up type veth peer name up1; ip link set up1 up');
  const pods = [await on.add(), await on.attach('direct'), await on.attach('side')];
  const states = async (env: NodeJS.ProcessEnv = {}) => {
    const { stdout } = await on.tryCni(['list', '-o', 'json'], env);
    const { attachments } = JSON.parse(stdout) as { attachments: { state: string }[] };
    return attachments.map(({ state }) => state);
  };
  // As the kubelet's dockershim and cri-dockerd have it.
  const elsewhere = { CNI_CACHE_DIR: '/var/lib/cni/cache' };
  await on.sh('mkdir /var/lib/cni/cache; mv /var/lib/cni/results /var/lib/cni/cache');
  const left = () => on.sh('ls /var/lib/cni/networks/*; iptables-save -t nat | grep CNI | sort');
  const before = await left();
  const { exit, stdout, stderr } = await on.tryCni(['gc']);
  t.is(exit, 1, stdout + stderr);
  t.deepEqual(stdout.match(/^\d+ attachments? removed.*/gm), Array(3).fill('0 attachments removed, 1 kept.'));
  t.regex(
    stderr,
    /^Warning: Bridge "br0" has "veth\w+" of network "net", .* no record in "\/var\/lib\/cni\/results" names it\..* CNI_CACHE_DIR/m,
  );
  t.regex(
    stderr,
    /^Warning: No runtime has recorded a living container in "\/var\/lib\/cni\/results", but 1 attachment to network "side" is of this boot/m,
  );
  t.regex(stderr, /^Warning: The host has "veth\w+" of network "direct"/m);
  t.is(await left(), before);
  t.deepEqual(await states(), ['unchecked', 'unchecked', 'unchecked']);
  const { found } = await examine(on);
  t.is(found.filter(({ rule, subject }) => rule === 'records' && /without a record/.test(subject)).length, 3);

  await on.sh('iptables -t nat -F');
  const repaired = await on.tryCni(['repair']);
  t.deepEqual([repaired.exit, repaired.stdout.match(/^Not looked at: /gm)?.length], [0, 3], repaired.stdout);
  t.regex(repaired.stdout, /^0 attachments repaired, 0 intact, 3 not recorded and not looked at\.$/m);
  for (const warned of [repaired, await on.tryCni(['list'])])
    t.deepEqual(warned.stderr.match(/^Warning: (?=Bridge|The host|No runtime)/gm)?.length, 3, warned.stderr);
  t.is((await on.tryCni(['repair'], elsewhere)).exit, 0);

  t.deepEqual(await states(elsewhere), ['ok', 'ok', 'ok']);
  t.is((await on.tryCni(['gc'], elsewhere)).exit, 0);
  t.is(await left(), before);

  const all = await on.tryCni(['gc', '--all', 'net']);
  t.is(all.exit, 1, all.stdout + all.stderr);
  const [, remove] =
    /^Still there: interfaces "veth\w+", .* remove them with "(.*)"$/m.exec(all.stdout) ?? [];
  await on.sh(remove!);
  t.deepEqual(await interfacesOf(pods[0]!), []);
  t.is((await on.tryCni(['gc', '--all', 'net'])).exit, 0);

  for (const pod of pods) await pod.remove();
  // The host was booted since, as far as files tell.
  await on.sh('rm -r /var/lib/cni/cache; touch -d 1990-01-01 /var/lib/cni/networks/side/10.*');
  const after = await on.tryCni(['gc']);
  t.is(after.exit, 0, after.stdout + after.stderr);
  for (const one of ['net', 'direct', 'side']) t.deepEqual(await reservedIn(on.host, one), []);
});

test('gc keeps what belongs to containers whose records are elsewhere, beside records of others', async (t) => {
  const side = network('side', { type: 'macvlan', master: 'up0', ipam: hostLocal('10.7.0.0/24') });
  const on = await makeOperator(t, [plain, side]);
  await on.sh('ip link add up0 up type veth peer name up1; ip link set up1 up');
  const elsewhere = { CNI_CACHE_DIR: '/var/lib/cni/cache' };
  const pod = await on.attach('net', elsewhere);
  await on.attach('side', elsewhere);
  await (await on.attach('net')).remove();
  const gc = async (...args: string[]) => {
    const { exit, stdout, stderr } = await on.tryCni(['gc', ...args]);
    return { exit, removed: stdout.match(/^Removed .*/gm)?.length ?? 0, stderr };
  };
  const reserved = async () => [await reservedIn(on.host, 'net'), await reservedIn(on.host, 'side')];
  const first = await gc();
  t.deepEqual([first.exit, first.removed], [1, 1], first.stderr);
  t.deepEqual(await reserved(), [['10.5.0.2'], ['10.7.0.2']], 'beside a container that is gone');
  await on.attach('net');
  t.deepEqual(await gc(), { ...first, removed: 0 });
  t.deepEqual(await reserved(), [['10.5.0.2', '10.5.0.4'], ['10.7.0.2']], 'beside one attached by hand');

  await takeOver(on, 'ab'.repeat(32), '10.5.0.4');
  const running = await pod.start(t, ['sh', '-c', 'echo; exec sleep 300']);
  const second = await gc('net');
  t.deepEqual([second.exit, second.removed], [1, 0], second.stderr);
  t.regex(second.stderr, /^Warning: Bridge "br0" has "veth\w+" of network "net", as it seems/m);
  running.kill();
  await once(running, 'exit');
  // It now looks like what an ADD left that ended with its runtime, before the container began.
  t.deepEqual(await gc('net'), { exit: 0, removed: 1, stderr: '' });
  t.deepEqual(await reservedIn(on.host, 'net'), ['10.5.0.4']);
});

test('containers of nerdctl have names of their own, and are gone when their PIDs are others’', async (t) => {
  const on = await makeOperator(t, [plain]);
  const rewrite = (path: string, changed: (text: string) => string) => {
    const text = readFileSync(on.host.file(path), 'utf8');
    writeFileSync(on.host.file(path), changed(text));
  };
  const ids = ['1', '2'].map((last) => `production-${'ab'.repeat(5)}${last}${'0'.repeat(53)}`);
  for (const [i, id] of ids.entries()) {
    const { netns } = await on.host.addPod();
    const { pid } = await on.host.start(t, ['nsenter', `--net=${netns}`, 'sh', '-c', 'echo; exec sleep 300']);
    await on.cni(['add', 'net', `/proc/${pid}/ns/net`]);
    await takeOver(on, id, `10.5.0.${i + 2}`);
  }
  const states = async () => {
    const { stdout } = await on.tryCni(['list', '-o', 'json']);
    const { attachments } = JSON.parse(stdout) as {
      attachments: { containerId: string; state: string }[];
    };
    return attachments.map(({ containerId, state }) => [containerId, state]);
  };
  t.deepEqual(
    await states(),
    ids.map((id) => [id, 'ok']),
  );
  t.regex(await on.cni(['repair', 'production-ababababab10']), /, 1 intact\.$/m);

  rewrite(`/var/lib/cni/results/net-${ids[1]}-eth0`, (text) =>
    text.replaceAll(/\/proc\/\d+\//g, `/proc/${on.host.pid}/`),
  );
  t.deepEqual(
    (await examine(on)).found.map(({ subject }) => subject),
    ['production-ababababab20 on network "net"'],
  );
  const { exit, stdout, stderr } = await on.tryCni(['gc']);
  t.is(exit, 0, stdout + stderr);
  t.regex(stdout, /^Removed production-\w{64} eth0: 10\.5\.0\.3 \(its network namespace is gone\)$/m);
  t.deepEqual(await states(), [[ids[0], 'ok']]);
  t.deepEqual(await reservedIn(on.host, 'net'), ['10.5.0.2']);
});
