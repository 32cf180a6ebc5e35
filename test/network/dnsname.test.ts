import test from 'ava';
import { Attachment, type AttachOptions, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { fakePrograms } from '../support/firewall.ts';
import type { Host } from '../support/host.ts';
import { makeNamedHost, nameDirectory, named, network, serverOf } from '../support/name-server.ts';
import { dig, iptablesSave, snapshot, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';

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
    // Clients outside of the network get no answer.
    const outside = await outsideOf(host);
    const refused = await outside.tryRun(['dig', '@10.31.0.1', '+time=1', '+tries=1', 'web.cluster.local']);
    t.not(refused.exit, 0);
    await web.del();
    if (block[0] === 'nft') t.notRegex(await host.run(['nft', 'list', 'ruleset']), /dport 53/);
  }
});

test('an iptables that the kernel has nothing for is no hindrance', async (t) => {
  const host = await makeNamedHost(t);
  // What iptables-nft says in a kernel without nf_tables, or without its netlink.
  for (const text of [
    'iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument',
    'iptables/1.8.9 Failed to initialize nft: Protocol not supported',
  ]) {
    const env = await fakePrograms(host, `echo "${text}" >&2; exit 4`);
    const web = await attach(host, network(), named('web', { env }));
    await web.check({ env });
    await web.del({ env });
    t.is(serverOf(host), undefined);
    t.is((await runNetworkVerb(host, network(), 'GC', { valid: [], env })).exit, 0);
  }
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

/** Hides the programs of iptables from a host; Debian has them behind /etc/alternatives. */
async function removeIptables(host: Host): Promise<void> {
  await host.run(['mkdir', '/run/alternatives']);
  await host.run(['mount', '--bind', '/run/alternatives', '/etc/alternatives']);
}
