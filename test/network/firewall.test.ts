import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb, sample } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, iptablesSave, ping, serve, snapshot } from '../support/observe.ts';

const net = (keys: object = {}, bridge = 'br0', subnet = '10.5'): Conflist => ({
  cniVersion: '1.0.0',
  name: bridge,
  plugins: [
    {
      type: 'bridge',
      bridge,
      isDefaultGateway: true,
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: `${subnet}.0.0/24` }], [{ subnet: `fd00:${subnet.slice(-1)}::/64` }]],
      },
    },
    { type: 'firewall', backend: 'iptables', ...keys },
  ],
});
/** The newer reference plugin writes "same-bridge|isolated" where Debian's knows only the former. */
const rules = async (host: Host, family: 4 | 6 = 4) =>
  (await iptablesSave(host, 'filter', family)).map((rule) =>
    rule.replace('same-bridge|isolated', 'same-bridge'),
  );

test('connections of a pod, and answers to them, pass a node that forwards nothing else', async (t) => {
  const host = await makeHost(t);
  for (const program of ['iptables', 'ip6tables']) await host.run([program, '-P', 'FORWARD', 'DROP']);
  const other = await attach(host, net({}, 'br1', '10.6'));
  await serve(t, other.pod, 'tcp', 80, 'other');
  const without = { ...net(), plugins: net().plugins.slice(0, 1) };
  const blocked = await attach(host, without);
  t.is(await ask(blocked.pod, 'tcp', other.ip, 80), undefined);
  await blocked.del();
  const one = await attach(host, net());
  t.like(await ask(one.pod, 'tcp', other.ip, 80), { label: 'other' });
  await one.check();
  await host.run(['iptables', '-I', 'CNI-ADMIN', '-s', one.ip, '-j', 'DROP']);
  t.is(await ask(one.pod, 'tcp', other.ip, 80), undefined, "the operator's rules come first");
});

test('DEL leaves only what all containers share; twice, and without the namespace', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  await (await attach(host, net(), { pod })).del();
  const before = await snapshot(host);
  const one = await attach(host, net(), { pod });
  await one.del();
  await one.del({ netns: '' });
  t.deepEqual(await snapshot(host), before);
});

test('ADD twice makes no rule twice, and a failing ADD leaves none', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  const firewall = new Attachment(host, one.pod, { ...net(), plugins: [net().plugins[1]!] });
  await firewall.tryAdd({}, one.result);
  const list = await rules(host);
  t.is(new Set(list).size, list.length);
  const wrong = new Attachment(host, one.pod, {
    ...net(),
    plugins: [{ ...net().plugins[1]!, ingressPolicy: 'closed' }],
  });
  t.regex((await wrong.tryAdd({}, one.result)).error?.msg ?? '', /"ingressPolicy" is "closed"/);
  t.deepEqual(await rules(host), list);
});

test('ingressPolicy keeps bridges, or pods, apart', async (t) => {
  const host = await makeHost(t);
  for (const [policy, sameBridge] of [
    ['same-bridge', true],
    ['isolated', false],
  ] as const) {
    await host.run(['sh', '-c', 'echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables']);
    const network = net(
      { ingressPolicy: policy },
      policy.slice(0, 5),
      policy === 'isolated' ? '10.7' : '10.8',
    );
    const [one, two] = [await attach(host, network), await attach(host, network)];
    const stranger = await attach(host, net({ ingressPolicy: 'same-bridge' }, 'br9', '10.9'));
    t.is(await ping(one.pod, two.ip), sameBridge, policy);
    t.false(await ping(stranger.pod, one.ip), policy);
    t.true(await ping(one.pod, network.name === 'isola' ? '10.7.0.1' : '10.8.0.1'));
    await one.check();
    await host.run(['ip6tables', '-F', 'CNI-ISOLATION-STAGE-2']);
    t.regex((await one.tryCheck()).error?.msg ?? '', /is not isolated for IPv6/, policy);
  }
});

test('the rules are those of the reference plugin, and either suite checks and deletes the other’s', async (t) => {
  for (const keys of [{}, { ingressPolicy: 'same-bridge' }, { iptablesAdminChainName: 'MINE' }]) {
    const seen = [];
    for (const suite of ['ours', 'reference'] as const) {
      const host = await makeHost(t);
      const network = net(keys);
      const bridge = new Attachment(
        host,
        await host.addPod(),
        { ...network, plugins: [network.plugins[0]!] },
        { containerId: 'one' },
      );
      await bridge.add();
      const chained = new Attachment(
        host,
        bridge.pod,
        { ...network, plugins: [network.plugins[1]!] },
        { containerId: 'one', suite },
      );
      const outcome = await chained.tryAdd({}, bridge.result);
      t.is(outcome.exit, 0, outcome.stdout);
      seen.push({ 4: (await rules(host)).sort(), 6: (await rules(host, 6)).sort() });
      const other = suite === 'ours' ? 'reference' : 'ours';
      await chained.check({ suite: other });
      await chained.del({ suite: other });
      t.false((await rules(host)).some((rule) => /10\.5\.0\.\d/.test(rule)));
    }
    t.deepEqual(seen[0], seen[1], JSON.stringify(keys));
  }
});

test('DEL finds rules that are not quite as ADD made them', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  await host.run(['iptables', '-D', 'CNI-FORWARD', '-s', `${one.ip}/32`, '-j', 'ACCEPT']);
  await one.del();
  t.false((await rules(host)).some((rule) => rule.includes(one.ip)));
  await one.del();
});

test('CHECK finds missing rules; STATUS a missing firewalld', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  await host.run(['iptables', '-F', 'CNI-FORWARD']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /lacks/);
  await host.run(['iptables', '-F', 'FORWARD']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /lacks the rule "FORWARD/);
  const network = { ...net({ backend: 'firewalld' }), cniVersion: '1.1.0' };
  t.is((await runNetworkVerb(host, network, 'STATUS')).error?.code, 50);
});

test('the sample network works', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, sample('80-firewall.conflist'));
  t.true(await ping(one.pod, '10.96.0.1'));
  await one.check();
  await one.del();
});
