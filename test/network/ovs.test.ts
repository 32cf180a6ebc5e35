import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { fail } from '../proof/injection.ts';
import {
  Attachment,
  type AttachOptions,
  attach,
  type Conflist,
  pluginConfig,
  runNetworkVerb,
} from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { links, ping, snapshot, until } from '../support/observe.ts';
import { OpenVswitch } from '../support/open-vswitch.ts';
import { addEnvironment } from '../support/plugin.ts';

/** On a busy machine, Open vSwitch takes long to see a port come up. */
const patience = { link_state_check_retries: 50 };
const network = (keys: object = {}): Conflist => ({
  cniVersion: '1.1.0',
  name: 'ovsnet',
  plugins: [
    {
      type: 'ovs',
      bridge: 'br1',
      ...patience,
      ipam: { type: 'host-local', subnet: '10.61.0.0/24' },
      ...keys,
    },
  ],
});

/** Addresses that host-local has allocated. */
async function reserved(host: Host): Promise<string[]> {
  const { stdout } = await host.tryRun(['ls', '/var/lib/cni/networks/ovsnet']);
  return stdout.split('\n').filter((name) => /^\d/.test(name) && name !== 'last_reserved_ip.0');
}

test('pods of one VLAN reach one another, and no other; a trunk passes tagged frames', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const one = await attach(host, network({ vlan: 100 }));
  const two = await attach(host, network({ vlan: 100 }));
  const other = await attach(host, network({ vlan: 200 }));
  await until('it answers', () => ping(one.pod, two.ip));
  t.false(await ping(one.pod, other.ip));
  await one.check();
  const port = one.result!.interfaces![0]!.name;
  t.is(await ovs.vsctl('get', 'Port', port, 'tag'), '100');
  t.is(await ovs.vsctl('get', 'Port', port, 'vlan_mode'), 'access');
  const ids = await ovs.vsctl('get', 'Port', port, 'external_ids');
  t.regex(ids, new RegExp(`contIface=eth0.*contNetns="${one.pod.netns}".*owner=ovs-cni.network.kubevirt.io`));
  const trunk = await attach(host, network({ trunk: [{ id: 42 }, { minID: 1000, maxID: 1002 }] }));
  const trunkPort = trunk.result!.interfaces![0]!.name;
  t.is(await ovs.vsctl('get', 'Port', trunkPort, 'trunks'), '[42, 1000, 1001, 1002]');
  t.is(await ovs.vsctl('get', 'Port', trunkPort, 'vlan_mode'), 'trunk');
  await trunk.check();
  const [, , third] = one.ip.split('.').map(Number);
  t.is(third, 0);
  t.regex(one.result!.interfaces![1]!.mac!, /^0a:58:0a:3d:00:/);
});

test('DEL leaves nothing, with and without result and namespace, and after a second time', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const pod = await host.addPod();
  const first = await attach(host, network(), { pod });
  await first.del();
  await first.del();
  const before = await snapshot(host);
  for (const change of [{}, { netns: '' }]) {
    const again = await attach(host, network(), { pod });
    t.is((await ovs.ports()).length, 1);
    if ('netns' in change) again.result = undefined;
    await again.del(change);
    t.deepEqual(await ovs.ports(), []);
    t.deepEqual(await reserved(host), []);
    // With an empty CNI_NETNS, the interface goes with the pod.
    if (!('netns' in change)) t.deepEqual(await snapshot(host), before);
    else await pod.remove();
  }
});

test('a port of ovs-cni is removed as well, also from another bridge', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  await ovs.addBridge('br2');
  const one = await attach(host, network());
  const name = one.result!.interfaces![0]!.name;
  await ovs.vsctl(
    'remove',
    'Port',
    name,
    'external_ids',
    'contID',
    '--',
    'remove',
    'Port',
    name,
    'external_ids',
    'contNetwork',
  );
  t.not((await ovs.vsctl('get', 'Port', name, 'external_ids')).includes('contID'), true);
  // Moved by hand.
  const id = await ovs.vsctl('get', 'Port', name, '_uuid');
  await ovs.vsctl('remove', 'bridge', 'br1', 'ports', id, '--', 'add', 'bridge', 'br2', 'ports', id);
  t.deepEqual(await ovs.ports('br2'), [name]);
  t.regex((await one.tryCheck()).error!.msg, /is not a port of bridge "br1"/);
  await one.del();
  t.deepEqual(await ovs.ports('br2'), []);
});

test('an ADD that fails leaves nothing: bridge or database missing, garbage, slow, an interface refused', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const warm = await attach(host, network());
  await warm.del();
  const fail = async (keys: object, options: AttachOptions = {}) => {
    const one = new Attachment(host, await host.addPod(), network(keys), options);
    const before = await snapshot(host);
    const outcome = await one.tryAdd();
    t.not(outcome.exit, 0);
    t.deepEqual(await snapshot(host), before);
    t.deepEqual(await reserved(host), []);
    t.deepEqual(await ovs.ports(), []);
    return outcome.error!;
  };
  t.regex((await fail({ bridge: 'none' })).msg, /no bridge "none"\. Create it/);
  t.regex((await fail({ bridge: undefined })).msg, /No bridge is named/);
  t.regex((await fail({ trunk: [{ minID: 5, maxID: 2 }] })).msg, /"trunk\[0\]" is the range 5 to 2/);
  t.regex((await fail({ deviceID: '0000:03:02.1' })).msg, /virtual function/);
  t.regex((await fail({ socket_file: '/run/x' })).msg, /"socket_file" is/);
  t.like(await fail({ socket_file: 'unix:/run/none.sock' }), { code: 11 });
  t.regex((await fail({ interface_type: 'nonsense' })).msg, /cannot use interface/);
  const garbage = createServer((socket) =>
    socket.on('error', () => {}).on('data', () => socket.write('no JSON')),
  );
  await listenOn(t, garbage, host.file('/run/garbage.sock'));
  t.regex(
    (await fail({ socket_file: 'unix:/run/garbage.sock' })).msg,
    /does not answer as a database server/,
  );
  await ovs.stopDatabase();
  const last = new Attachment(host, await host.addPod(), network());
  const before = await snapshot(host);
  const outcome = await last.tryAdd();
  t.is(outcome.error!.code, 11);
  t.deepEqual(await snapshot(host), before);
});

test('a process with too many open files is told of them, not of a database that is away', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const config = network();
  const pod = await host.addPod();
  const stdin = JSON.stringify(pluginConfig(config, config.plugins[0]!, {}));
  const messages: string[] = [];
  for (let nth = 1; messages.at(-1) !== ''; nth++) {
    const start = { type: 'ovs', env: addEnvironment(pod), stdin };
    const { exit, stdout } = await fail(host, start, { call: 'socket', nth }, 'EMFILE');
    const { code, msg } = JSON.parse(stdout) as { code?: number; msg?: string };
    if (exit !== 0) t.is(code, 999, msg);
    messages.push(msg ?? '');
    t.is((await ovs.ports()).length, exit === 0 ? 1 : 0);
  }
  const told = messages.filter((one) => /database of Open vSwitch/.test(one));
  t.not(told.length, 0);
  for (const one of told) t.regex(one, /, as this process has too many open files/);
});

test('DEL releases address and interface while the database is gone; GC removes the port later', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const one = await attach(host, network());
  const living = await attach(host, network());
  await ovs.stopDatabase();
  t.is((await runNetworkVerb(host, network(), 'STATUS')).exit, 1);
  await one.del();
  t.deepEqual(await reserved(host), [living.ip]);
  t.false((await links(host)).some(({ ifname }) => ifname === one.result!.interfaces![0]!.name));
  await ovs.startDatabase();
  t.is((await ovs.ports()).length, 2);
  const valid = [{ containerID: living.pod.containerId, ifname: 'eth0' }];
  const { exit, stdout } = await runNetworkVerb(host, network(), 'GC', { valid });
  t.is(exit, 0, stdout);
  t.deepEqual(await ovs.ports(), [living.result!.interfaces![0]!.name]);
  await until('Open vSwitch has it again', async () => (await living.tryCheck()).exit === 0);
  t.is((await runNetworkVerb(host, network(), 'STATUS')).exit, 0);
});

for (const verb of ['ADD', 'DEL'])
  test(`${verb} of any container removes ports whose interface is gone, and none of others`, async (t) => {
    const host = await makeHost(t);
    const ovs = await OpenVswitch.start(t, host);
    const [old, own, living] = [
      await attach(host, network()),
      await attach(host, network()),
      await attach(host, network()),
    ];
    const portOf = (one: Attachment) => one.result!.interfaces![0]!.name;
    // As ovs-cni would have made it.
    for (const key of ['contID', 'contNetwork'])
      await ovs.vsctl('remove', 'Port', portOf(old), 'external_ids', key);
    await ovs.stopDatabase();
    for (const one of [old, own]) {
      await one.pod.remove();
      one.result = undefined;
      await one.del({ netns: '' });
    }
    await ovs.startDatabase();
    // An operator's ports, one of a type without an interface in the kernel.
    await host.run(['ovs-vsctl', '--no-wait', 'add-port', 'br1', 'foreign']);
    await ovs.vsctl(
      ...['--no-wait', 'add-port', 'br1', 'user', '--', 'set', 'Interface', 'user', 'type=patch'],
      ...['--', 'set', 'Port', 'user', 'external_ids:owner=ovs-cni.network.kubevirt.io'],
    );
    const last = verb === 'ADD' ? await attach(host, network()) : living;
    if (verb === 'DEL') await living.del();
    const kept = verb === 'ADD' ? [portOf(living), portOf(last)] : [];
    t.deepEqual((await ovs.ports()).toSorted(), ['foreign', 'user', ...kept].toSorted());
  });

test('a request for any port number and a trunk up to the last VLAN are those of ovs-cni', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const keys = { trunk: [{ minID: 4090, maxID: 4095 }], ofport_request: 0, args: { cni: { mac: 7 } } };
  const one = await attach(host, network(keys));
  const port = one.result!.interfaces![0]!.name;
  t.is(await ovs.vsctl('get', 'Port', port, 'trunks'), '[4090, 4091, 4092, 4093, 4094, 4095]');
  t.is(await ovs.vsctl('get', 'Interface', port, 'ofport_request'), '[]');
  await one.check();
  await one.del();
  t.deepEqual(await ovs.ports(), []);
});

test('the port of an attachment whose interface is gone gives way to a new one', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const pod = await host.addPod();
  const lost = await attach(host, network(), { pod });
  await host.run(['ip', 'link', 'delete', lost.result!.interfaces![0]!.name]);
  t.regex((await lost.tryCheck()).error!.msg, /missing|cannot use|no interface/i);
  const again = await attach(host, network({ ipam: { type: 'host-local', subnet: '10.62.0.0/24' } }), {
    pod,
  });
  t.deepEqual(await ovs.ports(), [again.result!.interfaces![0]!.name]);
});

test('keys of the flat file count where the network has none; TCP and port numbers', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  await host.run(['mkdir', '-p', '/etc/cni/net.d/ovs.d']);
  await host.run(['tee', '/etc/cni/net.d/ovs.d/ovs.conf'], {
    stdin: JSON.stringify({ bridge: 'br9', vlan: 7, socket_file: 'tcp:127.0.0.1:6640' }),
  });
  // A file that this node does not have.
  const one = await attach(host, network({ ofport_request: 77, configuration_path: '/etc/cni/nowhere' }));
  const name = one.result!.interfaces![0]!.name;
  t.is(await ovs.vsctl('get', 'Port', name, 'tag'), '7');
  t.is(await ovs.vsctl('get', 'Interface', name, 'ofport'), '77');
  await host.run(['tee', '/etc/cni/net.d/ovs.d/ovs.conf'], { stdin: '{' });
  t.regex((await one.tryCheck()).error!.msg, /ovs\.conf" cannot be used/);
});

test('a database behind TLS, with keys of ovs-pki; without them, and with those of another authority', async (t) => {
  const host = await makeHost(t);
  await host.run(['sh', '-ec', 'mkdir -p /etc/openvswitch; mount -t tmpfs tmpfs /etc/openvswitch']);
  const makeKeys = (directory: string) =>
    host.run([
      'sh',
      '-ec',
      `mkdir -p ${directory}; cd ${directory}
      pki="ovs-pki --dir=${directory}/pki --log=${directory}/log"
      $pki init; $pki req+sign sc switch; $pki req+sign server switch
      cp pki/switchca/cacert.pem .`,
    ]);
  await Promise.all([makeKeys('/run/own'), makeKeys('/run/other')]);
  const ovs = await OpenVswitch.start(t, host, {
    serverOptions: [
      '--remote=pssl:6641:127.0.0.1',
      '--private-key=/run/own/server-privkey.pem',
      '--certificate=/run/own/server-cert.pem',
      '--ca-cert=/run/own/cacert.pem',
    ],
  });
  const secure = network({ socket_file: 'ssl:127.0.0.1:6641' });
  const pod = await host.addPod();
  const before = await snapshot(host);
  const one = new Attachment(host, pod, secure);
  const missing = await one.tryAdd();
  t.regex(missing.error!.msg, /"\/etc\/openvswitch\/sc-privkey\.pem"/);
  const useKeys = (directory: string) =>
    host.run([
      'sh',
      '-c',
      `cp ${directory}/sc-privkey.pem ${directory}/sc-cert.pem ${directory}/cacert.pem /etc/openvswitch`,
    ]);
  await host.run([
    'sh',
    '-c',
    'for f in sc-privkey sc-cert cacert; do echo x > /etc/openvswitch/$f.pem; done',
  ]);
  t.regex((await one.tryAdd()).error!.msg, /or its keys in "\/etc\/openvswitch"/);
  await useKeys('/run/other');
  const foreign = await one.tryAdd();
  t.regex(foreign.error!.msg, /ssl:127\.0\.0\.1:6641/);
  t.regex(`${foreign.error!.msg} ${foreign.error!.details}`, /certificate/);
  t.deepEqual(await snapshot(host), before);
  await useKeys('/run/own');
  await one.add();
  t.is((await ovs.ports()).length, 1);
  await one.check();
  await one.del();
  t.deepEqual(await ovs.ports(), []);
});

test('many pods at once', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const pods = await Promise.all(Array.from({ length: 8 }, () => host.addPod()));
  const all = await Promise.all(pods.map((pod) => attach(host, network(), { pod })));
  t.is((await ovs.ports()).length, 8);
  await until('it answers', () => ping(all[0]!.pod, all[7]!.ip));
  await Promise.all(all.map((one) => one.del()));
  t.deepEqual(await ovs.ports(), []);
  t.deepEqual(await reserved(host), []);
});

test('GC removes a port of ovs-cni whose namespace is gone, and no other', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const [gone, living] = [await attach(host, network()), await attach(host, network())];
  for (const { result } of [gone, living]) {
    const port = result!.interfaces![0]!.name;
    for (const key of ['contID', 'contNetwork']) await ovs.vsctl('remove', 'Port', port, 'external_ids', key);
  }
  await gone.pod.remove();
  t.is((await runNetworkVerb(host, network(), 'GC', { valid: [] })).exit, 0);
  t.deepEqual(await ovs.ports(), [living.result!.interfaces![0]!.name]);
  t.true(existsSync(host.file(`/var/lib/cni/ovs-cni/cache/${living.pod.containerId}-eth0`)));
});

test("GC removes ovs-cni's files of attachments that are gone, as a DEL that was killed leaves them", async (t) => {
  const host = await makeHost(t);
  await OpenVswitch.start(t, host);
  const cache = host.file('/var/lib/cni/ovs-cni/cache');
  const [gone, living] = [await attach(host, network()), await attach(host, network())];
  const [left, kept] = [gone, living].map(({ pod }) => `${pod.containerId}-eth0`) as [string, string];
  const text = readFileSync(join(cache, left), 'utf8');
  await gone.del();
  for (const name of [left, 'torn-eth0', `${left}.4194305.tmp`]) writeFileSync(join(cache, name), '{');
  writeFileSync(join(cache, left), text);
  writeFileSync(join(cache, 'other-eth0'), text.replace('"ovsnet"', '"othernet"'));
  const valid = [{ containerID: living.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, network(), 'GC', { valid })).exit, 0);
  t.deepEqual(readdirSync(cache).sort(), [kept, 'other-eth0', 'torn-eth0'].sort());
});

function listenOn(
  t: { teardown(step: () => void): void },
  server: ReturnType<typeof createServer>,
  path: string,
): Promise<void> {
  t.teardown(() => void server.close());
  return new Promise((resolve) => server.listen(path, resolve));
}
