import test from 'ava';
import { attach, runNetworkVerb } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, serve, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
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
    // Longer than the thirty seconds after which the kernel forgets by itself.
    await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
    const network = portNet({ backend });
    const hosts = { 4: '192.0.2.1', 6: 'fd00:2::1' } as const;
    const talk = async () => {
      const one = await attach(host, network, ports([5353, 53, 'udp']));
      await serve(t, one.pod, 'udp', 53, 'pod');
      for (const family of [4, 6] as const) {
        // The host asks for no neighbours while the link-local address of the new bridge is being checked.
        await until(
          `IPv${family} is answered`,
          async () => (await ask(outside, 'udp', hosts[family], 5353))?.label === 'pod',
        );
        t.true((await tracked(host, family, 5353)).length > 0);
      }
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
