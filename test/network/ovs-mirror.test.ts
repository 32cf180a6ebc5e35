import test from 'ava';
import { capture } from '../support/capture.ts';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { ping, until } from '../support/observe.ts';
import { OpenVswitch } from '../support/open-vswitch.ts';

const network = (...mirrors: { type: string; mirrors: object[] }[]): Conflist => ({
  cniVersion: '1.1.0',
  name: 'mirrored',
  plugins: [
    {
      ...{ type: 'ovs', bridge: 'br1', link_state_check_retries: 50 },
      ipam: { type: 'host-local', subnet: '10.63.0.0/24' },
    },
    ...mirrors.map((one) => ({ ...one, bridge: 'br1' })),
  ],
});
const producer = (...mirrors: object[]) => ({ type: 'ovs-mirror-producer', mirrors });
const consumer = (...mirrors: object[]) => ({ type: 'ovs-mirror-consumer', mirrors });

test('a consumer sees what producers send and receive; the mirror goes with the last of them', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const watcher = await attach(host, network(consumer({ name: 'm1' })));
  const one = await attach(host, network(producer({ name: 'm1', ingress: true, egress: true })));
  const other = await attach(host, network());
  await watcher.check();
  await one.check();
  const captured = await capture(t, host, watcher.pod, 'icmp');
  await until('it answers', () => ping(one.pod, other.ip));
  await until('the copies are there', async () => {
    const seen = await captured();
    return (
      seen.includes(`${one.ip} > ${other.ip}: ICMP echo request`) &&
      seen.includes(`${other.ip} > ${one.ip}: ICMP echo reply`)
    );
  });
  await one.del();
  t.is(
    await ovs.vsctl('--columns=select_src_port,select_dst_port', 'list', 'Mirror'),
    'select_src_port     : []\nselect_dst_port     : []',
  );
  await watcher.del();
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});

test('a mirror goes with its port on DEL that knows neither result nor namespace', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const one = await attach(host, network(consumer({ name: 'm1' })));
  t.not(await ovs.vsctl('list', 'Mirror'), '');
  one.result = undefined;
  await one.del({ netns: '' });
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});

test('what cannot be is refused and leaves nothing; GC removes mirrors without ports', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const watcher = await attach(host, network(consumer({ name: 'm1' })));
  const second = new Attachment(host, await host.addPod(), network(consumer({ name: 'm1' })));
  t.regex((await second.tryAdd()).error!.msg, /sends its copies to another port already/);
  await second.del();
  await watcher.check();
  const useless = new Attachment(host, await host.addPod(), network(producer({ name: 'm1' })));
  t.regex((await useless.tryAdd()).error!.msg, /copies nothing of the container/);
  await useless.del();
  const misplaced: Conflist = {
    cniVersion: '1.1.0',
    name: 'mirrored',
    plugins: [
      { type: 'ptp', ipam: { type: 'host-local', subnet: '10.64.0.0/24' } },
      { ...producer({ name: 'm1', ingress: true }), bridge: 'br1' },
    ],
  };
  const wrong = new Attachment(host, await host.addPod(), misplaced);
  t.regex((await wrong.tryAdd()).error!.msg, /is not a port of Open vSwitch/);
  await wrong.del();
  await ovs.vsctl('del-port', 'br1', watcher.result!.interfaces![0]!.name);
  t.regex(await ovs.vsctl('list', 'Mirror'), /m1/);
  t.is((await runNetworkVerb(host, network(consumer({ name: 'm1' })), 'GC', { valid: [] })).exit, 0);
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});

test('a mirror that an operator has made is joined, and stays', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  await ovs.vsctl(
    ...['add-port', 'br1', 'span0', '--', 'set', 'Interface', 'span0', 'type=internal'],
    ...['--', '--id=@p', 'get', 'Port', 'span0'],
    ...['--', '--id=@m', 'create', 'Mirror', 'name=span', 'output-port=@p'],
    ...['--', 'add', 'Bridge', 'br1', 'mirrors', '@m'],
  );
  const mirrors = () => ovs.vsctl('--columns=name,select_src_port', 'list', 'Mirror');
  const before = await mirrors();
  const one = await attach(host, network(producer({ name: 'span', ingress: true })));
  const port = await ovs.vsctl('get', 'Port', one.result!.interfaces![0]!.name, '_uuid');
  t.is(await mirrors(), before.replace('[]', `[${port}]`));
  await one.check();
  const second = new Attachment(host, await host.addPod(), network(consumer({ name: 'span' })));
  t.regex((await second.tryAdd()).error!.msg, /sends its copies to another port already/);
  await second.del();
  await one.del();
  t.is(await mirrors(), before);
  const net = network(producer({ name: 'span', ingress: true }));
  t.is((await runNetworkVerb(host, net, 'GC', { valid: [] })).exit, 0);
  t.is(await mirrors(), before);
});

test('many producers at once share one mirror', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  const pods = await Promise.all(Array.from({ length: 6 }, () => host.addPod()));
  const net = network(producer({ name: 'm1', ingress: true }));
  const all = await Promise.all(pods.map((pod) => attach(host, net, { pod })));
  const sources = await ovs.vsctl('get', 'Mirror', 'm1', 'select_src_port');
  t.is(sources.split(',').length, 6);
  await Promise.all(all.map((one) => one.del()));
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});

test('the flat file fills in what the network leaves out, and need not have the keys of mirrors', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host);
  await host.run(['mkdir', '-p', '/etc/cni/net.d/ovs.d']);
  const share = (keys: object) =>
    host.run(['tee', '/etc/cni/net.d/ovs.d/ovs.conf'], { stdin: JSON.stringify(keys) });
  const mirror = { name: 'm1' };
  const socket_file = 'unix:/var/run/openvswitch/db.sock';
  await share({ socket_file });
  const watcher = await attach(host, network(consumer(mirror)));
  await watcher.check();
  t.is((await runNetworkVerb(host, network(consumer(mirror)), 'STATUS')).exit, 0);
  t.is((await runNetworkVerb(host, network(consumer(mirror)), 'GC', { valid: null })).exit, 0);
  await watcher.del();
  t.is(await ovs.vsctl('list', 'Mirror'), '');

  const bare: Conflist = network();
  bare.plugins.push({ type: 'ovs-mirror-consumer' });
  const refused = new Attachment(host, await host.addPod(), bare);
  t.regex((await refused.tryAdd()).error!.msg, /No bridge is named\. Set "bridge"/);
  const alone = new Attachment(host, refused.pod, { ...bare, plugins: [bare.plugins.at(-1)!] });
  const { exit, stderr } = await alone.tryDel();
  t.is(exit, 0);
  t.regex(stderr, /No bridge is named.* by the next DEL or GC that knows the bridge/);
  await refused.del();
  await share({ socket_file, bridge: 'br1' });
  t.regex((await refused.tryAdd()).error!.msg, /No mirror is named\. Set "mirrors"/);
  await refused.del();
  await share({ socket_file, bridge: 'br1', mirrors: [mirror] });
  const one = await attach(host, bare);
  await one.check();
  t.regex(await ovs.vsctl('list', 'Mirror'), /m1/);
  await host.run(['rm', '/etc/cni/net.d/ovs.d/ovs.conf']);
  await one.del();
  await share({ bridge: 'br1' });
  t.is((await runNetworkVerb(host, bare, 'GC', { valid: [] })).exit, 0);
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});
