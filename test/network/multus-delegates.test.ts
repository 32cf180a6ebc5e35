/** multus: foreign plugins that the plugins of a pod's networks run. */

import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { command } from '../support/command.ts';
import { type Host, makeHostWithDevices } from '../support/host.ts';
import { logEntries, logFile } from '../support/log.ts';
import { suites } from '../support/plugin.ts';
import {
  annotated,
  annotatedMultus,
  interfacesOf,
  makeHostWithNetworks,
  mentions,
  savedOf,
  several,
  writeNetworks,
} from '../support/several.ts';

const network = annotatedMultus;

const env = { CNI_PATH: `${suites.ours}:/run/bin` };

/**
 * Defines a network whose plugin is a script: ADD makes /run/left, and DEL removes that, but fails as long as
 * there is a file /run/refusing.
 * @param addExit the exit code of ADD.
 */
function writeForeign(host: Host, addExit: number): void {
  mkdirSync(host.file('/run/bin'));
  const script = `#!/bin/sh
if [ $CNI_COMMAND = DEL ]; then test ! -e /run/refusing && rm -f /run/left; exit; fi
test $CNI_COMMAND = ADD && touch /run/left && echo '{"cniVersion": "1.1.0", "code": 117, "msg": "Half done"}'
exit ${addExit}
`;
  writeFileSync(host.file('/run/bin/foreign'), script, { mode: 0o755 });
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'foreign', plugins: [{ type: 'foreign' }] }]);
}

/** Names of the networks that are saved of a pod. */
const namesOf = (host: Host, { pod }: Attachment) => savedOf(host, pod).map(({ Name }) => Name);

for (const how of ['DEL', 'GC'])
  test(`what a plugin of others leaves when its ADD fails is taken back by ${how}`, async (t) => {
    const host = await makeHostWithNetworks(t);
    writeForeign(host, 1);
    const options = annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,foreign' });
    const one = new Attachment(host, await host.addPod(), network, { env });
    const { error } = await one.tryAdd(options);
    t.is(error!.msg, 'Network "foreign", interface "net2": Half done');
    t.deepEqual(await interfacesOf(one.pod), []);
    t.true(existsSync(host.file('/run/left')));
    // Without the annotation, only what is saved tells which network it is.
    if (how === 'DEL') await one.del();
    else t.is((await runNetworkVerb(host, network, 'GC', { valid: [], env })).exit, 0);
    t.false(existsSync(host.file('/run/left')));
    t.deepEqual(mentions(host, one.pod), []);
  });

test('a failed ADD that cannot take back everything has DEL do it', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeForeign(host, 0);
  writeFileSync(host.file('/run/refusing'), '');
  const one = new Attachment(host, await host.addPod(), network, { env });
  await one.pod.run(['ip', 'link', 'add', 'net2', 'type', 'veth', 'peer', 'name', 'far']);
  const outcome = await one.tryAdd(annotated({ 'k8s.v1.cni.cncf.io/networks': 'foreign,storage' }));
  t.regex(outcome.error!.msg, /"storage", interface "net2": .*already has an interface/);
  t.regex(outcome.stderr, /It did not forget the delegates, as it could not run DEL of "foreign"/);
  await one.pod.run(['ip', 'link', 'delete', 'net2']);
  t.regex((await one.tryDel()).error!.msg, /Network "foreign", interface "net1": .*exit code 1/);
  rmSync(host.file('/run/refusing'));
  await one.del();
  t.false(existsSync(host.file('/run/left')));
  t.deepEqual(mentions(host, one.pod), []);
});

test('a network that "cni attach" cannot take back is known to DEL of the pod', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeForeign(host, 1);
  writeFileSync(host.file('/run/refusing'), '');
  const one = await attach(host, network, { ...annotated({}), env });
  const { exit, stderr } = await host.tryRun([command, 'attach', 'web', 'foreign'], { env });
  t.is(exit, 1);
  t.regex(stderr, /Something of the failed ADD may be left/);
  rmSync(host.file('/run/refusing'));
  await one.del();
  t.false(existsSync(host.file('/run/left')));
  t.deepEqual(mentions(host, one.pod), []);
});

test('a network that was refused keeps no pod from being deleted; one that was not reached is not tried', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeForeign(host, 1);
  writeFileSync(host.file('/run/refusing'), '');
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'missing', plugins: [{ type: 'missing' }] }]);
  const options = annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,foreign,missing' });
  const one = new Attachment(host, await host.addPod(), network, { env });
  t.is((await one.tryAdd(options)).error!.msg, 'Network "foreign", interface "net2": Half done');
  t.deepEqual(namesOf(host, one), ['foreign']);
  const { exit, stderr } = await one.tryDel();
  t.is(exit, 0);
  t.regex(
    stderr,
    /Network "foreign", .*exit code 1.*\. As ADD was refused there, nothing need be left; going on/,
  );
  t.deepEqual(mentions(host, one.pod), []);
});

test('nothing is saved of a plugin that could not be started', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeForeign(host, 1);
  chmodSync(host.file('/run/bin/foreign'), 0o644);
  const one = new Attachment(host, await host.addPod(), network, { env });
  const { error } = await one.tryAdd(annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,foreign' }));
  t.regex(error!.msg, /Cannot run plugin "\/run\/bin\/foreign"\. Make it an executable file/);
  t.deepEqual(mentions(host, one.pod), []);
});

test('what a network of this suite could not take back of its ADD has DEL do it', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeForeign(host, 0);
  writeFileSync(host.file('/run/refusing'), '');
  // The gateway of its route is unreachable, so that the bridge plugin fails once it has the address.
  const route = { dst: '10.98.0.0/16', gw: '10.99.0.1' };
  const result = { cniVersion: '1.0.0', ips: [{ address: '10.41.9.9/24' }], routes: [route] };
  const foreign = readFileSync(host.file('/run/bin/foreign'), 'utf8');
  const ipam = foreign.replace(/\{.*Half done"\}/, JSON.stringify(result));
  writeFileSync(host.file('/run/bin/foreign'), ipam, { mode: 0o755 });
  const bridge = { type: 'bridge', bridge: 'br9', ipam: { type: 'foreign' } };
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'routed', plugins: [bridge] }]);
  const one = new Attachment(host, await host.addPod(), network, { env });
  const outcome = await one.tryAdd(annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,routed' }));
  t.regex(outcome.error!.msg, /Network "routed", interface "net2": .*10\.99\.0\.1/);
  t.deepEqual(await interfacesOf(one.pod), []);
  t.deepEqual(namesOf(host, one), ['routed']);
  t.regex((await one.tryDel()).error!.msg, /Network "routed", interface "net2": .*exit code 1/);
  rmSync(host.file('/run/refusing'));
  await one.del();
  t.false(existsSync(host.file('/run/left')));
  t.deepEqual(mentions(host, one.pod), []);
});

/** How the second plugin of a network may fail, when the first has done its work. */
const failures: Readonly<Record<string, { second: object; message: RegExp; script?: string }>> = {
  'is killed': {
    second: { type: 'second' },
    message: /"pair", interface "net2": .*SIGKILL/,
    script: 'test $CNI_COMMAND = DEL || kill -9 $$',
  },
  'fails and leaves nothing': {
    second: { type: 'tuning', sysctl: { 'net.core.no_such_key': '1' } },
    message: /"pair", interface "net2": .*no_such_key/,
  },
  'refuses, and fails in DEL too': {
    second: { type: 'second' },
    message: /"pair", interface "net2": .*exit code 3/,
    script: 'exit 3',
  },
  'prints nonsense': {
    second: { type: 'second' },
    message: /"pair", interface "net2": .*second/,
    script: 'test $CNI_COMMAND = DEL || echo nonsense',
  },
};

for (const [how, { second, message, script }] of Object.entries(failures))
  test(`when a plugin ${how}, DEL takes back what could not be taken back of those before it`, async (t) => {
    const host = await makeHostWithNetworks(t);
    writeForeign(host, 0);
    writeFileSync(host.file('/run/refusing'), '');
    if (script) writeFileSync(host.file('/run/bin/second'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const plugins = [{ type: 'foreign' }, second];
    writeNetworks(host, [{ cniVersion: '1.0.0', name: 'pair', plugins } as Conflist]);
    const one = new Attachment(host, await host.addPod(), network, { env });
    const outcome = await one.tryAdd(annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,pair' }));
    t.regex(outcome.error!.msg, message);
    t.true(namesOf(host, one).includes('pair'));
    t.regex((await one.tryDel()).error?.msg ?? '', /Network "pair", interface "net2": .*exit code 1\b/);
    rmSync(host.file('/run/refusing'));
    await one.del();
    t.false(existsSync(host.file('/run/left')));
    t.deepEqual(mentions(host, one.pod), []);
  });

test('"cni attach" of a network that cannot work leaves the pod as it was', async (t) => {
  const host = await makeHostWithNetworks(t);
  const bridge = { type: 'bridge', bridge: 'br9' };
  const ofPlugins = (name: string, ...plugins: Conflist['plugins']) => ({
    cniVersion: '1.1.0',
    name,
    plugins,
  });
  writeNetworks(host, [
    ofPlugins(
      'missing',
      { ...bridge, ipam: { type: 'host-local', subnet: '10.41.9.0/24' } },
      { type: 'absent' },
    ),
    ofPlugins('wrong', { ...bridge, mtu: 'large' }),
  ]);
  const one = await attach(host, network, annotated({}));
  const missing = await host.tryRun([command, 'attach', 'web', 'missing'], { env });
  t.regex(missing.stderr, /Plugin "absent" is not in CNI_PATH/);
  t.deepEqual(namesOf(host, one), ['pods']);
  // Its plugin refuses every verb because of this, and will never detach the pod.
  const attachWrong = () => host.tryRun([command, 'attach', 'web', 'wrong'], { env });
  t.regex((await attachWrong()).stderr, /"mtu"/);
  t.deepEqual(namesOf(host, one), ['pods', 'wrong']);
  await one.check();
  const { exit, stderr } = await host.tryRun([command, 'detach', 'web', 'wrong'], { env });
  t.is(exit, 0);
  t.regex(stderr, /Network "wrong" was never attached, so that nothing need be left: .*"mtu"/);
  t.deepEqual(namesOf(host, one), ['pods']);
  await attachWrong();
  t.is((await one.tryDel()).exit, 0);
  t.deepEqual(await interfacesOf(one.pod), []);
  t.deepEqual(mentions(host, one.pod), []);
});

test('an IPAM plugin of others gets the environment of the network that it is for', async (t) => {
  const host = await makeHostWithDevices(t);
  mkdirSync(host.file('/run/bin'));
  const script = `#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH" >> /run/calls
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.41.1.9/24"}]}'
`;
  writeFileSync(host.file('/run/bin/telling'), script, { mode: 0o755 });
  const macvlan = { type: 'macvlan', master: 'up0', ipam: { type: 'telling' } };
  // That version has no GC of a whole network.
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'told', plugins: [macvlan] }]);
  const vendored = several('multus', {
    delegates: [{ type: 'loopback', name: 'first' }],
    binDir: '/run/vendor',
    capabilities: { 'io.kubernetes.cri.pod-annotations': true },
  });
  const logged = { ...env, CNI_LOG: logFile };
  const asked = JSON.stringify([{ name: 'told', mac: '02:00:00:00:00:77' }]);
  const { args, capabilities } = annotated({ 'k8s.v1.cni.cncf.io/networks': asked });
  const options = { args: `${args};IP=10.41.0.9`, capabilities: capabilities!, env: logged };
  const one = await attach(host, vendored, options);
  await one.check();
  await one.del();
  const stale = await attach(host, vendored, options);
  t.is((await runNetworkVerb(host, vendored, 'GC', { valid: [], env: logged })).exit, 0);
  const called = (verb: string, { pod }: Attachment) =>
    `${verb} ${pod.containerId} ${pod.netns} net1 ${args};MAC=02:00:00:00:00:77 /run/vendor:${env.CNI_PATH}`;
  t.deepEqual(readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n'), [
    called('ADD', one),
    called('CHECK', one),
    called('DEL', one),
    called('ADD', stale),
    called('DEL', stale),
  ]);
  for (const { plugin, verb, ifname, containerId } of await logEntries(host, 21)) {
    const isFurther = plugin === 'macvlan' || plugin === 'telling';
    t.is(ifname, verb === 'GC' ? undefined : isFurther ? 'net1' : 'eth0', `${plugin} ${verb}`);
    t.is(containerId === undefined, verb === 'GC', `${plugin} ${verb}`);
  }
});
