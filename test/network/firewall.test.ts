import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb, sample } from '../support/chain.ts';
import { fakePrograms, firewallAlone, firewallNet, withoutFirewall } from '../support/firewall.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, files, iptablesSave, ping, reach, serve, snapshot } from '../support/observe.ts';
import { addEnvironment, runPlugin, suites } from '../support/plugin.ts';

const net = (keys: object = {}, ...where: [bridge?: string, subnet?: string]) =>
  firewallNet('1.0.0', { backend: 'iptables', ...keys }, ...where);
const firewallOf = (one: Attachment, keys: object = {}) =>
  firewallAlone(one, { backend: 'iptables', ...keys });
const rules = (host: Host, family: 4 | 6 = 4) => iptablesSave(host, 'filter', family);
const claims = (host: Host) => files(host, '/run/cni/firewall');
const accepting = async (host: Host, family: 4 | 6 = 4) =>
  (await rules(host, family)).filter((rule) => rule.startsWith('-A CNI-FORWARD') && rule.includes('ACCEPT'));

test('connections of a pod, and answers to them, pass a node that forwards nothing else', async (t) => {
  const host = await makeHost(t);
  for (const program of ['iptables', 'ip6tables']) await host.run([program, '-P', 'FORWARD', 'DROP']);
  const other = await attach(host, net({}, 'br1', '10.6'));
  await serve(t, other.pod, 'tcp', 80, 'other');
  const without = withoutFirewall(net());
  const blocked = await attach(host, without);
  t.is(await ask(blocked.pod, 'tcp', other.ip, 80), undefined);
  await blocked.del();
  const one = await attach(host, net());
  t.like(await reach(one.pod, 'tcp', other.ip, 80), { label: 'other' });
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

test('ingressPolicy is refused behind a plugin that makes no bridge, and leaves nothing', async (t) => {
  const host = await makeHost(t);
  const ptp = { type: 'ptp', ipam: { type: 'host-local', subnet: '10.5.0.0/24' } };
  const one = await attach(host, { ...net(), plugins: [ptp] });
  const before = await rules(host);
  const wrong = firewallOf(one, { ingressPolicy: 'same-bridge' });
  t.regex((await wrong.tryAdd({}, one.result)).error!.msg, /the plugin before made no bridge/);
  t.deepEqual(await rules(host), before);
  await wrong.del();
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
    t.regex(
      (await one.tryCheck()).error?.msg ?? '',
      /Missing: isolation of bridge "[\w-]+" for IPv6/,
      policy,
    );
  }
});

test('the rules are those of the reference plugin, and either suite checks and deletes the other’s', async (t) => {
  for (const keys of [{ iptablesAdminChainName: '' }, { iptablesAdminChainName: 'MINE' }]) {
    const seen = [];
    for (const suite of ['ours', 'reference'] as const) {
      const host = await makeHost(t);
      const bridge = await attach(
        host,
        { ...net(keys), plugins: net().plugins.slice(0, 1) },
        { containerId: 'one' },
      );
      const chained = firewallOf(bridge, keys);
      const outcome = await chained.tryAdd({ suite }, bridge.result);
      t.is(outcome.exit, 0, outcome.stdout);
      seen.push({ 4: (await rules(host)).sort(), 6: (await rules(host, 6)).sort() });
      const other = suite === 'ours' ? 'reference' : 'ours';
      await chained.check({ suite: other });
      await chained.del({ suite: other });
      t.deepEqual([...(await accepting(host)), ...(await accepting(host, 6))], []);
    }
    t.deepEqual(seen[0], seen[1], JSON.stringify(keys));
  }
});

/** What release 1.9.1 of the reference plugin adds for a bridge, in the order of its inserts. */
const isolation = (bridge: string, policy: string) => {
  const [shared, own] = ['same-bridge|isolated', policy].map(
    (text) => `-m comment --comment "CNI firewall plugin rules (ingressPolicy: ${text})"`,
  );
  return [
    `-A FORWARD ${shared} -j CNI-ISOLATION-STAGE-1`,
    ...(policy === 'isolated' ? [`-A CNI-ISOLATION-STAGE-1 -i ${bridge} -o ${bridge} ${own} -j DROP`] : []),
    `-A CNI-ISOLATION-STAGE-1 -i ${bridge} ! -o ${bridge} ${own} -j CNI-ISOLATION-STAGE-2`,
    `-A CNI-ISOLATION-STAGE-1 ${shared} -j RETURN`,
    `-A CNI-ISOLATION-STAGE-2 -o ${bridge} ${shared} -j DROP`,
    `-A CNI-ISOLATION-STAGE-2 ${shared} -j RETURN`,
  ];
};
/** The rules as listed, with comments before the target whichever release of iptables lists them. */
const isolationOf = async (host: Host, family: 4 | 6 = 4) =>
  (await rules(host, family)).filter((rule) => rule.startsWith('-A') && rule.includes('ISOLATION'));

test('isolation is in the words of release 1.9.1 of the reference, also where an older release was before', async (t) => {
  for (const policy of ['same-bridge', 'isolated']) {
    const host = await makeHost(t);
    const bridge = await attach(host, withoutFirewall(net()));
    const own = firewallOf(bridge, { ingressPolicy: policy });
    t.is((await own.tryAdd({}, bridge.result)).exit, 0);
    for (const family of [4, 6] as const)
      t.deepEqual(await isolationOf(host, family), isolation('br0', policy));
  }
  const host = await makeHost(t);
  const bridge = await attach(host, withoutFirewall(net()));
  const same = firewallOf(bridge, { ingressPolicy: 'same-bridge' });
  t.is((await same.tryAdd({ suite: 'reference' }, bridge.result)).exit, 0);
  await same.check();
  t.is((await same.tryAdd({}, bridge.result)).exit, 0);
  t.deepEqual(await isolationOf(host), isolation('br0', 'same-bridge'), 'no duplicate in other words');
  t.is((await accepting(host)).length, 2);
});

test('CHECK asks only for the families that the pod has', async (t) => {
  const host = await makeHost(t);
  const { plugins } = net();
  const ipam = { type: 'host-local', subnet: '10.5.0.0/24' };
  const network = {
    ...net(),
    plugins: [
      { ...plugins[0]!, ipam },
      { ...plugins[1]!, ingressPolicy: 'same-bridge' },
    ],
  };
  const bridge = await attach(host, { ...network, plugins: network.plugins.slice(0, 1) });
  const chained = firewallOf(bridge, { ingressPolicy: 'same-bridge' });
  t.is((await chained.tryAdd({ suite: 'reference' }, bridge.result)).exit, 0);
  await chained.check();
  t.deepEqual(await isolationOf(host, 6), []);
  const other = await attach(host, network);
  await other.check();
  t.deepEqual(await isolationOf(host, 6), []);
});

test('first ADDs at once all succeed, and make each rule once', async (t) => {
  const host = await makeHost(t);
  const network = net({ ingressPolicy: 'isolated' });
  const bridge = { ...network, plugins: network.plugins.slice(0, 1) };
  const all: Attachment[] = [];
  for (let i = 0; i < 8; i++) all.push(await attach(host, bridge));
  const chained = all.map((one) => firewallOf(one, { ingressPolicy: 'isolated' }));
  const outcomes = await Promise.all(chained.map((one, i) => one.tryAdd({}, all[i]!.result)));
  t.deepEqual(
    outcomes.map(({ exit }) => exit),
    Array(8).fill(0),
    outcomes.map(({ stdout }) => stdout).join(),
  );
  for (const family of [4, 6] as const) {
    const list = await rules(host, family);
    t.is(new Set(list).size, list.length, list.join('\n'));
    t.is((await accepting(host, family)).length, 16);
    t.deepEqual(await isolationOf(host, family), isolation('br0', 'isolated'));
  }
  for (const one of chained) await one.check();
  await Promise.all(chained.map((one) => one.del()));
  t.deepEqual([...(await accepting(host)), ...(await accepting(host, 6))], []);
  t.deepEqual(claims(host), {});
});

test('DEL without prevResult, and GC, find what an ADD left whose result was lost', async (t) => {
  const host = await makeHost(t);
  const [living, lost] = [await attach(host, net()), await attach(host, net())];
  await firewallOf(lost).del();
  t.is((await accepting(host)).length, 2);
  t.is(Object.keys(claims(host)).length, 2);
  await firewallOf(lost).tryAdd({}, lost.result);
  const firewall = firewallOf(living).network;
  const gc = async (network: Conflist, valid: { containerID: string; ifname: string }[]) =>
    t.is((await runNetworkVerb(host, { ...network, cniVersion: '1.1.0' }, 'GC', { valid })).exit, 0);
  await gc({ ...firewall, name: 'another' }, []);
  t.is((await accepting(host)).length, 4, "another network's are left alone");
  await gc(firewall, [{ containerID: living.pod.containerId, ifname: 'eth0' }]);
  const left = await accepting(host);
  t.is(left.length, 2);
  t.true(left.every((rule) => rule.includes(`${living.ip}/32`)));
  t.is((await accepting(host, 6)).length, 2);
  await living.check();
  await gc(firewall, []);
  t.deepEqual(await accepting(host), []);
  t.deepEqual(claims(host), {});
});

test('an address that has passed to a living pod keeps its rules', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  const heir = firewallOf(one);
  heir.options.containerId = 'heir';
  t.is((await heir.tryAdd({ containerId: 'heir' }, one.result)).exit, 0);
  t.is((await accepting(host)).length, 2, 'the rules are there once');
  await firewallOf(one).del({ containerId: one.pod.containerId });
  const late = firewallOf(one);
  late.result = one.result;
  await late.del({ containerId: one.pod.containerId });
  t.is((await accepting(host)).length, 2);
  // The same address on another network counts as well.
  const elsewhere = new Attachment(
    host,
    one.pod,
    { ...firewallOf(one).network, name: 'elsewhere' },
    { containerId: 'far' },
  );
  t.is((await elsewhere.tryAdd({}, one.result)).exit, 0);
  await heir.del({ containerId: 'heir' });
  t.is((await accepting(host)).length, 2);
  await elsewhere.del();
  t.deepEqual(await accepting(host), []);
  t.deepEqual(claims(host), {});
});

test('an address that another network gives away while it is released keeps its rules', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  const elsewhere = firewallOf(one);
  const other = new Attachment(host, one.pod, { ...elsewhere.network, name: 'elsewhere' });
  const slow = await fakePrograms(
    host,
    `touch /run/begun; sleep 1; exec /usr/sbin/\${0##*/} "$@"`,
    ['iptables', 'ip6tables'],
    ['', '-restore'],
  );
  const firewall = firewallOf(one);
  firewall.result = one.result;
  const leaving = firewall.del({ env: slow });
  while (!existsSync(host.file('/run/begun'))) await sleep(20);
  t.is((await other.tryAdd({}, one.result)).exit, 0);
  await leaving;
  t.deepEqual([(await accepting(host)).length, (await accepting(host, 6)).length], [2, 2]);
  await other.check();
  await other.del();
  t.deepEqual(await accepting(host), []);
  t.deepEqual(claims(host), {});
});

test('a note that a DEL of the reference plugin left does not keep the rules of the next owner', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  const firewall = firewallOf(one);
  firewall.result = one.result;
  await firewall.del({ suite: 'reference' });
  t.not(Object.keys(claims(host)).length, 0);
  await one.pod.remove();
  const next = new Attachment(host, await host.addPod(), firewall.network);
  t.is((await next.tryAdd({ suite: 'reference' }, one.result)).exit, 0);
  t.is((await accepting(host)).length, 2);
  await next.del();
  t.deepEqual([...(await accepting(host)), ...(await accepting(host, 6))], []);
});

test('rules that a DEL of the reference plugin left go with those of the next pod that has the address', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, withoutFirewall(net()));
  const firewall = firewallOf(one);
  t.is((await firewall.tryAdd({ suite: 'reference' }, one.result)).exit, 0);
  // As after an ADD that failed behind it, which tells DEL no result.
  firewall.result = undefined;
  await firewall.del({ suite: 'reference' });
  t.is((await accepting(host)).length, 2);
  await one.del();
  const next = new Attachment(host, await host.addPod(), firewall.network);
  t.is((await next.tryAdd({}, one.result)).exit, 0);
  next.result = one.result;
  await next.check();
  await next.del();
  t.deepEqual([...(await accepting(host)), ...(await accepting(host, 6))], []);
});

test("ADD reads no other attachment's notes", async (t) => {
  const host = await makeHost(t);
  await attach(host, net());
  const directory = host.file('/run/cni/firewall');
  for (const name of readdirSync(directory)) writeFileSync(join(directory, name), '{');
  const one = new Attachment(host, await host.addPod(), net());
  t.is((await one.tryAdd()).stderr, '');
});

test('an ADD that fails takes back only what it added', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  const before = { rules: await rules(host), claims: claims(host) };
  const broken = await fakePrograms(host, 'echo broken >&2; exit 2', ['ip6tables'], ['', '-restore']);
  t.not((await firewallOf(one).tryAdd({ env: broken }, one.result)).exit, 0, 'a second ADD');
  t.deepEqual({ rules: await rules(host), claims: claims(host) }, before);
  await one.check();
  const bridge = await attach(host, withoutFirewall(net()));
  t.not((await firewallOf(bridge).tryAdd({ env: broken }, bridge.result)).exit, 0, 'a first one');
  t.deepEqual({ rules: await rules(host), claims: claims(host) }, before);
});

test('a full disk refuses ADD and leaves nothing; DEL and GC go on', async (t) => {
  const host = await makeHost(t);
  const [one, two] = [await attach(host, net()), await attach(host, net())];
  const bridge = await attach(host, withoutFirewall(net()));
  await host.run(['mount', '-o', 'remount,size=256k', '/run']);
  t.not((await host.tryRun(['dd', 'if=/dev/zero', 'of=/run/full', 'bs=4k'])).exit, 0);
  const before = await rules(host);
  const refused = await firewallOf(bridge).tryAdd({}, bridge.result);
  t.is(refused.error?.code, 5);
  t.regex(
    refused.error?.msg ?? '',
    /Cannot write "\/run\/cni\/firewall\/10\.5\.0\.\d+_.*file system is full/,
  );
  t.deepEqual(await rules(host), before);
  await firewallOf(one).del();
  t.is((await accepting(host)).length, 2);
  await host.run(['mount', '-o', 'remount,ro', '/run']);
  const last = firewallOf(two);
  last.result = two.result;
  const outcome = await last.tryDel();
  t.is(outcome.exit, 0, outcome.stdout);
  t.deepEqual([...(await accepting(host)), ...(await accepting(host, 6))], []);
});

test('what is torn, foreign or hostile among the notes stops nobody, and leads nowhere', async (t) => {
  const host = await makeHost(t);
  const [one, two] = [await attach(host, net()), await attach(host, net())];
  const directory = host.file('/run/cni/firewall');
  const [torn, link] = readdirSync(directory).filter(
    (name) => name.startsWith(one.ip) || name.startsWith('fd00'),
  );
  writeFileSync(join(directory, torn!), '{"netw');
  writeFileSync(host.file('/run/precious'), 'precious');
  rmSync(join(directory, link!));
  symlinkSync('/run/precious', join(directory, link!));
  for (const name of ['..', 'x', '10.5.0.2', `10.05.0.2_${'0'.repeat(16)}-${'0'.repeat(16)}.json`].slice(1))
    mkdirSync(join(directory, name));
  t.is((await host.tryRun(['mkfifo', '/run/cni/firewall/fifo.json'])).exit, 0);
  const firewall = { ...firewallOf(one).network, cniVersion: '1.1.0' };
  const outcome = await runNetworkVerb(host, firewall, 'GC', {
    valid: [{ containerID: two.pod.containerId, ifname: 'eth0' }],
  });
  t.is(outcome.exit, 0, outcome.stdout);
  t.regex(outcome.stderr, /cannot be used/);
  t.is((await accepting(host)).length, 2);
  t.is(readFileSync(host.file('/run/precious'), 'utf8'), 'precious');
  await two.check();
  await two.del();
  t.deepEqual(await accepting(host), []);
});

test('STATUS tries iptables and changes nothing; a reserved chain is refused', async (t) => {
  const host = await makeHost(t);
  const status = (backend: string, env: NodeJS.ProcessEnv = {}) =>
    runPlugin(host, 'firewall', 'STATUS', { env, config: { cniVersion: '1.1.0', name: 'n', backend } });
  for (const backend of ['', 'iptables', 'nftables']) t.is((await status(backend)).exit, 0);
  t.is(await host.run(['nft', 'list', 'ruleset']), '');
  const broken = await fakePrograms(host, 'echo broken >&2; exit 2');
  for (const backend of ['', 'nftables']) t.is((await status(backend, broken)).exit, 0);
  t.like((await status('iptables', broken)).error, {
    msg: 'iptables-restore cannot be used for table "filter"',
    details: 'broken',
  });
  const network = { ...net(), plugins: net().plugins.slice(1), cniVersion: '1.1.0' };
  const reserved = {
    ...network,
    plugins: [{ ...network.plugins[0]!, iptablesAdminChainName: 'CNI-FORWARD' }],
  };
  t.regex((await runNetworkVerb(host, reserved, 'STATUS')).error?.msg ?? '', /has a meaning of its own/);
  t.false((await rules(host)).some((rule) => rule.includes('CNI')));
});

test('a DEL that lacks the capability to use iptables fails, and the rules stay for one that has it', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const one = await attach(host, net());
  const before = (await accepting(host)).length;
  t.not(before, 0);
  const config = { ...one.network.plugins[1]!, name: one.network.name, cniVersion: '1.0.0' };
  const { exit, stdout } = await host.tryRun(
    ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin', '--', join(suites.ours, 'firewall')],
    {
      env: { ...addEnvironment(one.pod), CNI_COMMAND: 'DEL' },
      stdin: JSON.stringify({ ...config, prevResult: one.result }),
    },
  );
  t.is(exit, 1, stdout);
  t.is((await accepting(host)).length, before);
  await one.del();
  t.deepEqual(await accepting(host), []);
});

test('DEL finds rules that are not quite as ADD made them', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  await host.run(['iptables', '-D', 'CNI-FORWARD', '-s', `${one.ip}/32`, '-j', 'ACCEPT']);
  await one.del();
  t.false((await rules(host)).some((rule) => rule.includes(one.ip)));
  await one.del();
});

test('what all pods share is missed by CHECK, and put back by ADD, also for a pod of one family', async (t) => {
  const host = await makeHost(t);
  const { plugins } = net();
  const ipam = { type: 'host-local', subnet: '10.5.0.0/24' };
  const network = { ...net(), plugins: [{ ...plugins[0]!, ipam }, plugins[1]!] };
  const one = await attach(host, network);
  await one.check();
  await host.run(['iptables', '-F', 'FORWARD']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: 1 rule of chain "FORWARD" in table "filter"/);
  const two = await attach(host, network);
  t.is((await rules(host)).filter((rule) => /^-A FORWARD .*-j CNI-FORWARD$/.test(rule)).length, 1);
  await one.check();
  await two.check();
});

test('CHECK finds missing rules; STATUS a missing firewalld', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  await host.run(['iptables', '-F', 'CNI-FORWARD']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: .*"CNI-FORWARD"/);
  await host.run(['iptables', '-F', 'FORWARD']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: 1 rule of chain "FORWARD" in table "filter"/);
  const network = { ...net({ backend: 'firewalld' }), cniVersion: '1.1.0' };
  t.is((await runNetworkVerb(host, network, 'STATUS')).error?.code, 50);
});

test('the sample network works', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, sample('80-firewall.conflist'));
  t.true(await ping(one.pod, '10.112.0.1'));
  await one.check();
  await one.del();
});
