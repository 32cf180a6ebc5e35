import test from 'ava';
import { attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ping } from '../support/observe.ts';

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      isGateway: true,
      macspoofchk: true,
      ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
    },
  ],
};
const ruleset = (host: Host) => host.run(['nft', 'list', 'ruleset']);

test('DEL and GC remove checks of which somebody has taken parts away', async (t) => {
  const host = await makeHost(t);
  for (const damage of [
    (chain: string) => [`flush chain bridge nat ${chain}`, `delete chain bridge nat ${chain}-mac`],
    () => ['flush chain bridge nat PREROUTING'],
    (chain: string) => ['flush chain bridge nat PREROUTING', `flush chain bridge nat ${chain}`],
    () => ['delete table bridge nat'],
  ]) {
    const one = await attach(host, network);
    const commands = damage(`cni-br-iface-${one.pod.containerId}-eth0`);
    await host.run(['nft', '-f', '-'], { stdin: `${commands.join('\n')}\n` });
    t.regex((await one.tryCheck()).error?.msg ?? '', /is not checked/);
    await one.del();
    await one.del();
    t.notRegex(await ruleset(host), /cni-br-iface/, commands.join());
  }
});

test('a check of a port that no longer exists does not stand in the way of a new one of that name', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, network);
  const port = one.result!.interfaces!.find(({ name }) => name.startsWith('veth'))!.name;
  const gone = await attach(host, network);
  const stale = gone.result!.interfaces!.find(({ name }) => name.startsWith('veth'))!.name;
  await host.run(['ip', 'link', 'delete', stale]);
  t.is(
    (
      await runNetworkVerb(host, network, 'GC', {
        valid: [{ containerID: one.pod.containerId, ifname: 'eth0' }],
      })
    ).exit,
    0,
  );
  const left = await ruleset(host);
  t.false(left.includes(stale));
  t.true(left.includes(port));
  t.true(await ping(one.pod, '10.5.0.1'));
  await one.check();
});

test('ADDs and DELs at once leave each pod its own check', async (t) => {
  const host = await makeHost(t);
  const pods = await Promise.all(Array.from({ length: 6 }, () => host.addPod()));
  const all = await Promise.all(pods.map((pod) => attach(host, network, { pod })));
  for (const one of all) await one.check();
  const [kept, ...rest] = all;
  await Promise.all(rest.map((one) => one.del()));
  await kept!.check();
  t.is((await ruleset(host)).match(/iifname/g)?.length, 1);
});
