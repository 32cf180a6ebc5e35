import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Attachment, type AttachOptions, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { fakePrograms } from '../support/firewall.ts';
import { type Host, makeHost } from '../support/host.ts';
import { endNameServer, nameDirectory, nameServer } from '../support/name-server.ts';
import { dig, iptablesSave, snapshot, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';

const network = (keys: object = {}, bridge: object = {}): Conflist => ({
  cniVersion: '1.1.0',
  name: 'names',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      isDefaultGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]],
      },
      ...bridge,
    },
    {
      type: 'dnsname',
      domainName: 'cluster.local',
      capabilities: { aliases: true, portMappings: true },
      ...keys,
    },
  ],
});

/** A host whose name servers are ended with the test. */
async function makeNamedHost(t: ExecutionContext): Promise<Host> {
  const host = await makeHost(t);
  endNameServer(t, host, 'names');
  return host;
}

const serverOf = (host: Host) => nameServer(host, 'names');

const named = (name: string, options: AttachOptions = {}): AttachOptions => ({
  args: `IgnoreUnknown=1;K8S_POD_NAME=${name}`,
  ...options,
});

test('pods find one another by name, alias and address, over UDP and TCP, IPv4 and IPv6', async (t) => {
  const host = await makeNamedHost(t);
  const web = await attach(host, network(), named('web', { capabilities: { aliases: { names: ['www'] } } }));
  const client = await attach(host, network(), named('client'));
  t.deepEqual(client.result!.dns!.nameservers, ['10.31.0.1', 'fd00:31::1']);
  t.deepEqual(client.result!.dns!.search, ['cluster.local']);
  for (const name of ['web.cluster.local', 'www.cluster.local'])
    for (const server of client.result!.dns!.nameservers!) {
      t.deepEqual(await dig(client.pod, server, name), ['10.31.0.2']);
      t.deepEqual(await dig(client.pod, server, name, 'AAAA', '+tcp'), ['fd00:31::2']);
    }
  t.deepEqual(await dig(client.pod, '10.31.0.1', '-x', '10.31.0.2'), ['web.cluster.local.']);
  t.deepEqual(await dig(client.pod, '10.31.0.1', '-x', 'fd00:31::2'), ['web.cluster.local.']);
  t.deepEqual(await dig(client.pod, '10.31.0.1', 'nobody.cluster.local'), []);
  await web.check();
  const pid = serverOf(host);
  await web.del();
  t.is(serverOf(host), pid, 'it goes on for the other');
  t.deepEqual(await dig(client.pod, '10.31.0.1', 'web.cluster.local'), []);
  t.deepEqual(await dig(client.pod, '10.31.0.1', 'client.cluster.local'), ['10.31.0.3']);
});

test('pods of Kubernetes have its names, and published ports have SRV records', async (t) => {
  const host = await makeNamedHost(t);
  const options = {
    args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0',
    capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
  };
  const keys = { args: { cni: { hostname: 'primary', subdomain: 'db' } } };
  const one = await attach(host, network(keys), options);
  const ask = (name: string, ...more: string[]) => dig(one.pod, '10.31.0.1', name, ...more);
  t.deepEqual(await ask('10-31-0-2.shop.pod.cluster.local'), ['10.31.0.2']);
  t.deepEqual(await ask('fd00-31--2.shop.pod.cluster.local', 'AAAA'), ['fd00:31::2']);
  t.deepEqual(await ask('primary.db.shop.svc.cluster.local'), ['10.31.0.2']);
  t.deepEqual(await ask('_http._tcp.db.shop.svc.cluster.local', 'SRV'), [
    '0 0 80 primary.db.shop.svc.cluster.local.',
  ]);
  t.deepEqual(await ask('_80._tcp.db-0.cluster.local', 'SRV'), ['0 0 80 db-0.cluster.local.']);
  const two = await attach(host, network({ args: { cni: { subdomain: 'db' } } }), {
    args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-1',
  });
  t.deepEqual(await ask('db.shop.svc.cluster.local'), ['10.31.0.2', '10.31.0.3'], 'a headless Service');
  t.deepEqual(await ask('db-1.db.shop.svc.cluster.local'), ['10.31.0.3']);
  await one.del();
  t.deepEqual(await dig(two.pod, '10.31.0.1', '_http._tcp.db.shop.svc.cluster.local', 'SRV'), []);
  await two.check();
});

test('the last DEL leaves no process, no file and no rule, also without result and namespace', async (t) => {
  const host = await makeNamedHost(t);
  const pod = await host.addPod();
  const first = await attach(host, network(), { ...named('web'), pod });
  await first.del();
  const before = await snapshot(host);
  const again = await attach(host, network(), { ...named('web'), pod });
  t.truthy(serverOf(host));
  t.true((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
  const commandLine = `/proc/${serverOf(host)}/cmdline`;
  await again.del();
  t.deepEqual(await snapshot(host), before);
  t.false(existsSync(commandLine) && readFileSync(commandLine, 'utf8').includes('dnsmasq'));
  t.false((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
  const forgotten = await attach(host, network(), { ...named('web'), pod });
  forgotten.result = undefined;
  await forgotten.del({ netns: '', args: '' });
  await forgotten.del({ netns: '', args: '' });
  t.is(serverOf(host), undefined);
});

test('a server that has crashed is found by CHECK, and runs again with the next ADD', async (t) => {
  const host = await makeNamedHost(t);
  const web = await attach(host, network(), named('web'));
  process.kill(serverOf(host)!, 'SIGKILL');
  await until('dnsmasq has ended', async () => serverOf(host) === undefined);
  const outcome = await web.tryCheck();
  t.regex(outcome.error!.msg, /does not know "web\.cluster\.local"/);
  const other = await attach(host, network(), named('other'));
  t.deepEqual(await dig(other.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.2']);
  await web.check();
});

test('a firewall that drops all for the host lets look-ups through, with iptables and nftables', async (t) => {
  for (const block of [
    ['iptables', '-P', 'INPUT', 'DROP'],
    [
      'nft',
      'add table inet own; add chain inet own in { type filter hook input priority 0; policy drop; meta l4proto icmpv6 accept; }',
    ],
    [
      'nft',
      'add table inet own; add chain inet own in { type filter hook input priority 0; policy accept; meta l4proto icmpv6 accept; ct state new reject with icmp type admin-prohibited; ct state new reject with icmpv6 type admin-prohibited; }',
    ],
  ]) {
    const host = await makeNamedHost(t);
    if (block[0] === 'nft') await removeIptables(host);
    await host.run(block);
    const web = await attach(host, network(), named('web'));
    t.deepEqual(await dig(web.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.2']);
    t.deepEqual(await dig(web.pod, '10.31.0.1', 'web.cluster.local', '+tcp'), ['10.31.0.2']);
    await web.check();
    // Who is not of the network asks in vain.
    const outside = await outsideOf(host);
    const refused = await outside.tryRun(['dig', '@10.31.0.1', '+time=1', '+tries=1', 'web.cluster.local']);
    t.not(refused.exit, 0);
    await web.del();
    if (block[0] === 'nft') t.notRegex(await host.run(['nft', 'list', 'ruleset']), /dport 53/);
  }
});

test('an iptables that the kernel has nothing for is no hindrance', async (t) => {
  const host = await makeNamedHost(t);
  // What iptables-nft says in a kernel without nf_tables.
  const env = await fakePrograms(
    host,
    'echo "iptables: Failed to initialize nft: Protocol not supported" >&2; exit 1',
  );
  const web = await attach(host, network(), named('web', { env }));
  await web.check({ env });
  await web.del({ env });
  t.is(serverOf(host), undefined);
  t.is((await runNetworkVerb(host, network(), 'GC', { valid: [], env })).exit, 0);
});

test('GC removes the names of those that are gone; two pods of one name share it', async (t) => {
  const host = await makeNamedHost(t);
  const [one, two] = [
    await attach(host, network(), named('web')),
    await attach(host, network(), named('web')),
  ];
  const kept = { containerID: two!.pod.containerId, ifname: 'eth0' };
  t.deepEqual(await dig(two!.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.2', '10.31.0.3']);
  await one!.pod.remove();
  const outcome = await runNetworkVerb(host, network(), 'GC', { valid: [kept] });
  t.is(outcome.exit, 0, outcome.stdout);
  t.deepEqual(await dig(two!.pod, '10.31.0.1', 'web.cluster.local'), ['10.31.0.3']);
  await runNetworkVerb(host, network(), 'GC', { valid: [] });
  t.is(serverOf(host), undefined);
});

test('names that DNS cannot hold are left out, and the container is connected', async (t) => {
  const host = await makeNamedHost(t);
  const long = 'a'.repeat(64);
  const options = (name: string): AttachOptions => ({
    args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${name}`,
    capabilities: {
      aliases: { names: ['www', 'web-', 'x\nserver=192.0.2.1', 'y # cni z/eth0', '10.31.0.9\tw'] },
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
    },
  });
  const keys = { args: { cni: { hostname: 'a..b', subdomain: 'db' } } };
  for (const name of [long, 'web-', 'a..b', '-']) {
    const one = await attach(host, network(keys), options(name));
    const id = one.pod.containerId.slice(0, 12);
    const ask = (asked: string, ...more: string[]) => dig(one.pod, '10.31.0.1', asked, ...more);
    for (const asked of [id, 'www', `${one.ip.replaceAll('.', '-')}.shop.pod`])
      t.deepEqual(await ask(`${asked}.cluster.local`), [one.ip], asked);
    t.deepEqual(await ask(`_80._tcp.${id}.cluster.local`, 'SRV'), [`0 0 80 ${id}.cluster.local.`]);
    const directory = nameDirectory('names');
    const files = await host.run(['sh', '-c', `cat ${directory}/addnhosts ${directory}/dnsmasq.conf`]);
    t.notRegex(files, /aaaa|web-|\.\.|192\.0\.2\.1|y # cni|svc|\n\n/);
    await one.check();
    await one.del();
  }
  const { stderr } = await new Attachment(host, await host.addPod(), network(), named(long)).tryAdd();
  t.regex(stderr, /K8S_POD_NAME is left out, as it is "a{64}", but a name in DNS has labels of at most 63/);
});

test("the server of a podman in root's login goes on, and ends with the last container", async (t) => {
  const host = await makeHost(t);
  const parent = '/run/user/0/containers/cni/dnsname';
  const directory = nameDirectory('names', parent);
  endNameServer(t, host, 'names', parent);
  endNameServer(t, host, 'names');
  const first = await attach(host, network(), named('first'));
  // As podman's plugin has it: at the same gateway, and with a line that names no container.
  await host.run([
    'sh',
    '-ec',
    `mkdir -p ${parent}; cd ${nameDirectory('names')}
    pid=$(cat pidfile); kill $pid; while [ -d /proc/$pid ]; do sleep 0.1; done; sed -i 's/\t# cni .*//' addnhosts
    sed -i 's,/run/containers/,/run/user/0/containers/,; s/\t# cni .*//' dnsmasq.conf
    rm -f pidfile; mv ${nameDirectory('names')} ${directory}; dnsmasq -u root --conf-file=${directory}/dnsmasq.conf`,
  ]);
  const second = await attach(host, network(), named('second'));
  t.truthy(nameServer(host, 'names', parent));
  t.is(serverOf(host), undefined);
  for (const { ip, name } of [
    { ip: first.ip, name: 'first' },
    { ip: second.ip, name: 'second' },
  ])
    t.deepEqual(await dig(second.pod, '10.31.0.1', `${name}.cluster.local`), [ip]);
  await first.del();
  t.deepEqual(await dig(second.pod, '10.31.0.1', 'first.cluster.local'), []);
  await second.del();
  t.is(nameServer(host, 'names', parent), undefined);
  t.not((await host.tryRun(['ls', directory])).exit, 0);
});

test('many pods at once are all found, and all gone at the end', async (t) => {
  const host = await makeNamedHost(t);
  const pods = await Promise.all(Array.from({ length: 8 }, () => host.addPod()));
  const all = await Promise.all(pods.map((pod, i) => attach(host, network(), { ...named(`pod-${i}`), pod })));
  for (const [i, one] of all.entries())
    t.deepEqual(await dig(one.pod, '10.31.0.1', `pod-${(i + 1) % 8}.cluster.local`), [all[(i + 1) % 8]!.ip]);
  await Promise.all(all.map((one) => one.del()));
  t.is(serverOf(host), undefined);
  t.false((await iptablesSave(host, 'filter')).some((rule) => rule.includes('--dport 53')));
});

test('what cannot be is refused, and leaves nothing', async (t) => {
  const host = await makeNamedHost(t);
  const tryAttach = async (net: Conflist, options: AttachOptions) => {
    const attachment = new Attachment(host, await host.addPod(), net, options);
    const outcome = await attachment.tryAdd();
    await attachment.tryDel();
    return outcome.error?.msg;
  };
  const plain = {
    bridge: 'br1',
    isDefaultGateway: false,
    ipam: { type: 'host-local', subnet: '10.32.0.0/24' },
  };
  t.regex((await tryAttach(network(), named('x\nserver=192.0.2.1')))!, /CNI_ARGS/);
  t.regex((await tryAttach(network({ domainName: '-' }), named('a')))!, /"domainName"/);
  t.regex((await tryAttach(network({ remoteServers: ['x'] }), named('a')))!, /"remoteServers" has "x"/);
  t.regex((await tryAttach(network({}, plain), named('a')))!, /none of the gateways of the container/);
  await host.start(t, ['sh', '-c', 'echo started; exec socat -u UDP4-RECV:53,bind=0.0.0.0 /dev/null']);
  await until('the port is taken', async () => (await host.run(['ss', '-Huln'])).includes('0.0.0.0:53'));
  t.regex((await tryAttach(network(), named('a')))!, /dnsmasq does not start/);
  t.is(serverOf(host), undefined);
  t.deepEqual(
    Object.keys((await snapshot(host)).files as object).filter((file) => /dnsname\//.test(file)),
    [],
  );
});

/** Takes the programs of iptables away from a host; Debian has them behind /etc/alternatives. */
async function removeIptables(host: Host): Promise<void> {
  await host.run(['mkdir', '/run/alternatives']);
  await host.run(['mount', '--bind', '/run/alternatives', '/etc/alternatives']);
}

test('DEL removes what a killed ADD has left half written, while others have names', async (t) => {
  const host = await makeNamedHost(t);
  const one = await attach(host, network(), named('one'));
  const other = await attach(host, network(), named('other'));
  const half = host.file(`${nameDirectory('names')}/addnhosts.99999999.tmp`);
  writeFileSync(half, '');
  await other.del();
  t.false(existsSync(half));
  await one.del();
});
