import test from 'ava';
import { fail, findPoints, kill, type Start } from '../proof/injection.ts';
import { Attachment, attach, pluginConfig, runNetworkVerb } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, files, serve, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { suites } from '../support/plugin.ts';
import { portNet, ports } from '../support/portmap.ts';

/** Tracked conversations with a port of the host. */
async function tracked(host: Host, family: 4 | 6, port: number): Promise<string[]> {
  const list = await host.run(['conntrack', '-L', '-f', family === 4 ? 'ipv4' : 'ipv6', '-p', 'udp']);
  return list.split('\n').filter((line) => line.includes(`dport=${port} `));
}

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: UDP conversations are forgotten in both families, by DEL and by GC`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    // Longer than the thirty seconds after which the kernel forgets a connection by itself.
    await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
    // An address of the host that no interface has, as of a load balancer.
    await host.run('ip route add local 198.51.100.7 dev lo'.split(' '));
    await outside.run('ip route add 198.51.100.7 via 192.0.2.1'.split(' '));
    const network = portNet({ backend });
    const hosts = { 4: '192.0.2.1', 6: 'fd00:2::1' } as const;
    const talk = async () => {
      const one = await attach(host, network, ports([5353, 53, 'udp']));
      await serve(t, one.pod, 'udp', 53, 'pod');
      for (const family of [4, 6] as const) {
        // The host asks for no neighbours while the link-local address of the new bridge is tentative.
        await until(
          `IPv${family} is answered`,
          async () => (await ask(outside, 'udp', hosts[family], 5353))?.label === 'pod',
        );
        t.true((await tracked(host, family, 5353)).length > 0);
      }
      await until(
        'the address of the load balancer is answered',
        async () => (await ask(outside, 'udp', '198.51.100.7', 5353))?.label === 'pod',
      );
      return one;
    };
    await (await talk()).del();
    for (const family of [4, 6] as const)
      t.deepEqual(await tracked(host, family, 5353), [], `DEL, IPv${family}`);
    const stale = await talk();
    await stale.pod.remove();
    t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
    for (const family of [4, 6] as const)
      t.deepEqual(await tracked(host, family, 5353), [], `GC, IPv${family}`);
  });

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: UDP conversations with the same port of another address go on, after DEL and GC`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
    await host.run('ip address add 192.0.2.3/24 dev wire'.split(' '));
    const network = portNet({ backend });
    const other = await attach(host, network, ports([5353, 53, 'udp', '192.0.2.3']));
    await serve(t, other.pod, 'udp', 53, 'other');
    await until(
      'it is answered',
      async () => (await ask(outside, 'udp', '192.0.2.3', 5353))?.label === 'other',
    );
    const conversations = await tracked(host, 4, 5353);
    t.true(conversations.length > 0);
    const remain = async () => t.is((await tracked(host, 4, 5353)).length, conversations.length);
    const add = () => attach(host, network, ports([5353, 53, 'udp', '192.0.2.1']));
    await (await add()).del();
    await remain();
    await (await add()).pod.remove();
    const valid = [{ containerID: other.pod.containerId, ifname: 'eth0' }];
    t.is((await runNetworkVerb(host, network, 'GC', { valid })).exit, 0);
    await remain();
  });

/** What may follow a DEL that did not finish, and what it is told. */
const remedies: Readonly<Record<string, (portmap: Attachment) => Promise<void>>> = {
  'DEL that is told the mappings': async (portmap) => {
    await portmap.host.run(['rm', '-r', '/run/cni/portmap']);
    await portmap.del();
  },
  'DEL that is told the mappings, but no result': async (portmap) => {
    await portmap.host.run(['rm', '-r', '/run/cni/portmap']);
    portmap.result = undefined;
    await portmap.del();
  },
  'DEL that is told nothing': async (portmap) => {
    portmap.result = undefined;
    await portmap.del({ capabilities: {}, netns: '' });
  },
  GC: async ({ host, network }) => {
    const { exit, stdout } = await runNetworkVerb(host, network, 'GC', { valid: [] });
    if (exit !== 0) throw new Error(stdout);
  },
};

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: UDP conversations are forgotten after a DEL that was killed, or failed, before it did`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
    const network = portNet({ backend });
    const [bridge, plugin] = network.plugins;
    const { pod, result } = await attach(host, { ...network, plugins: [bridge!] });
    await serve(t, pod, 'udp', 53, 'pod');
    const portmap = new Attachment(
      host,
      pod,
      { ...network, plugins: [plugin!] },
      ports([5353, 53, 'udp'], [8080, 80]),
    );
    const talk = async () => {
      t.is((await portmap.tryAdd({}, result)).exit, 0);
      await until('it is answered', async () => (await ask(outside, 'udp', '192.0.2.1', 5353)) !== undefined);
    };
    const del: Start = {
      type: 'portmap',
      stdin: JSON.stringify({
        ...pluginConfig(network, plugin!, portmap.options.capabilities),
        prevResult: result,
      }),
      env: {
        CNI_COMMAND: 'DEL',
        CNI_CONTAINERID: pod.containerId,
        CNI_NETNS: pod.netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: suites.ours,
      },
    };
    await talk();
    // The last one is for the connections.
    const point = (await findPoints(host, del)).points.findLast(({ text }) =>
      /^socket\(.*NETFILTER/.test(text),
    )!;
    t.deepEqual(await tracked(host, 4, 5353), []);
    for (const [what, remedy] of Object.entries(remedies))
      for (const fault of ['killed', 'failed']) {
        await talk();
        const { isReached, exit } = await (fault === 'killed'
          ? kill(host, del, point, 'killed')
          : fail(host, del, point, 'EMFILE'));
        t.true(isReached);
        t.not(exit, 0, 'a runtime calls again only after an error');
        t.notRegex(await host.run(['nft', 'list', 'ruleset']), /CNI-DN-|dnat to/, 'the rules are gone');
        t.true((await tracked(host, 4, 5353)).length > 0, 'the conversation is not');
        await remedy(portmap);
        t.deepEqual(await tracked(host, 4, 5353), [], `${what}, after it was ${fault}`);
        t.deepEqual(files(host, '/run/cni/portmap'), {});
      }
  });
