/** bandwidth: limits in both directions, as `tc` shows them and as traffic feels them. */

import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  Attachment,
  attach,
  type Conflist,
  type PluginConf,
  runNetworkVerb,
  sample,
} from '../support/chain.ts';
import { type Host, makeHost, type Namespace } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import { addEnvironment, type PrintedResult, succeeded, suites } from '../support/plugin.ts';

const network = sample('51-bandwidth.conflist');
const capabilities = {
  bandwidth: { ingressRate: 800000, ingressBurst: 80000, egressRate: 1600000, egressBurst: 160000 },
};

/** The sample with other keys for bandwidth. */
function limited(keys: object): Conflist {
  const plugin = { type: 'bandwidth', capabilities: { bandwidth: true }, ...keys };
  return { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!, plugin] };
}

/** A token bucket as `tc` shows it: bytes a second, bytes, microseconds. */
interface Bucket {
  rate: number;
  burst: number;
  lat: number;
}

async function bucketOf(ns: Namespace, device: string): Promise<Bucket | undefined> {
  const text = await ns.run(['tc', '-j', 'qdisc', 'show', 'dev', device, 'root']);
  const [qdisc] = JSON.parse(text) as { kind: string; options: Bucket }[];
  return qdisc?.kind === 'tbf' ? qdisc.options : undefined;
}

/**
 * The two interfaces of the host that limit a container: the host's end of its pair, and its IFB device.
 */
function devices({ interfaces = [] }: PrintedResult): { veth: string; ifb: string } {
  const named = (prefix: string) => interfaces.find(({ name }) => name.startsWith(prefix))?.name ?? '';
  return { veth: named('veth'), ifb: named('bwp') };
}

async function ifbs(host: Host): Promise<string[]> {
  const all = await observe.links(host);
  return all.filter(({ linkinfo }) => linkinfo?.info_kind === 'ifb').map(({ ifname }) => ifname);
}

/** A pod on the sample's first plugin alone, and the attachment with bandwidth to try on it. */
async function prepare(t: ExecutionContext, keys: object): Promise<{ host: Host; bandwidth: Attachment }> {
  const host = await makeHost(t);
  const plain = await attach(host, { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] });
  const only = { ...limited(keys), plugins: [{ ...limited(keys).plugins[1]!, prevResult: plain.result }] };
  return { host, bandwidth: new Attachment(host, plain.pod, only) };
}

test('DELs that come together, two for each pod, all end well and leave nothing', async (t) => {
  const host = await makeHost(t);
  const attachments = await Promise.all(Array.from({ length: 6 }, () => attach(host, network)));
  t.is((await ifbs(host)).length, 6);
  await Promise.all(attachments.flatMap((attachment) => [attachment.del(), attachment.del()]));
  t.deepEqual(await ifbs(host), []);
});

test('the sample limits both directions, and DEL leaves nothing', async (t) => {
  const host = await makeHost(t);
  const before = await observe.links(host);
  const attachment = await attach(host, network);
  const { veth, ifb } = devices(attachment.result!);
  t.deepEqual(await bucketOf(host, veth), { rate: 1_000_000, burst: 100_000, lat: 25_000 });
  t.deepEqual(await bucketOf(host, ifb), { rate: 2_000_000, burst: 200_000, lat: 25_000 });
  const entry = attachment.result!.interfaces!.at(-1)!;
  t.is((await observe.link(host, ifb))?.address, entry.mac);
  await attachment.check();
  await attachment.del();
  await attachment.del();
  t.deepEqual(
    (await observe.links(host)).map(({ ifname }) => ifname),
    before.map(({ ifname }) => ifname),
  );
});

test('traffic keeps to the limits', async (t) => {
  const host = await makeHost(t);
  const { pod, ip } = await attach(host, network);
  t.true(await observe.ping(host, ip));
  await pod.start(t, ['iperf3', '--server', '--forceflush']);
  const bitsPerSecond = async (...options: string[]) => {
    // A server that is still busy with the last client turns the next one away.
    let bits: number | undefined;
    await observe.until('iperf3 measures', async () => {
      const { stdout } = await host.tryRun(['iperf3', '--client', ip, '--json', '--time', '2', ...options]);
      const report = JSON.parse(stdout || '{}') as { end?: { sum_received?: { bits_per_second: number } } };
      bits = report.end?.sum_received?.bits_per_second;
      return bits !== undefined;
    });
    return bits!;
  };
  const receives = await bitsPerSecond();
  const sends = await bitsPerSecond('--reverse');
  // The burst comes on top.
  t.true(receives > 100_000 && receives < 12_000_000, `receives ${receives}`);
  t.true(sends > 100_000 && sends < 24_000_000, `sends ${sends}`);
});

test('the limits of the runtime count where the configuration has none', async (t) => {
  const host = await makeHost(t);
  const byRuntime = await attach(host, limited({}), { capabilities });
  const own = await attach(host, limited({ ingressRate: 80_000, ingressBurst: 80_000 }), { capabilities });
  t.deepEqual(await bucketOf(host, devices(byRuntime.result!).veth), {
    rate: 100_000,
    burst: 10_000,
    lat: 25_000,
  });
  t.is((await bucketOf(host, devices(byRuntime.result!).ifb))?.rate, 200_000);
  t.is((await bucketOf(host, devices(own.result!).veth))?.rate, 10_000);
  t.is(devices(own.result!).ifb, '');
});

test('without limits the result is passed on as it came', async (t) => {
  const { bandwidth, host } = await prepare(t, { ingressRate: 0, ingressBurst: 0 });
  const result = await bandwidth.add({ capabilities });
  t.deepEqual(result, bandwidth.network.plugins[0]!.prevResult);
  t.deepEqual(await ifbs(host), []);
  await bandwidth.check();
  await bandwidth.del();
});

test('a rate that takes more than 32 bits', async (t) => {
  const host = await makeHost(t);
  const rate = 80_000_000_000;
  const attachment = await attach(host, limited({ ingressRate: rate, ingressBurst: 8 * 1024 * 1024 * 1024 }));
  t.is((await bucketOf(host, devices(attachment.result!).veth))?.rate, rate / 8);
  await attachment.check();
});

test('a container that is attached twice has limits of its own on each interface', async (t) => {
  const host = await makeHost(t);
  const first = await attach(host, limited({}), { capabilities });
  const second = await attach(host, limited({ egressRate: 80_000, egressBurst: 80_000 }), {
    pod: first.pod,
    ifname: 'net1',
  });
  t.not(devices(first.result!).ifb, devices(second.result!).ifb);
  await second.check();
  await first.del();
  t.deepEqual(await ifbs(host), [devices(second.result!).ifb]);
  await second.check();
  await second.del();
  t.deepEqual(await ifbs(host), []);
});

test("a second attachment leaves the first one's limits, which the reference plugin has set", async (t) => {
  const host = await makeHost(t);
  const limits = { egressRate: 80_000_000, egressBurst: 8_000_000 };
  const theirs = await attach(host, { ...limited(limits), cniVersion: '1.0.0' }, { suite: 'reference' });
  const second = new Attachment(host, theirs.pod, limited(limits), { ifname: 'net1' });
  // As after an ADD that failed, and had no result.
  await second.del();
  t.deepEqual(await ifbs(host), [devices(theirs.result!).ifb]);
  await second.add();
  await second.check();
  t.is((await ifbs(host)).length, 2);
  await second.del();
  t.deepEqual(await ifbs(host), [devices(theirs.result!).ifb]);
  t.true(await observe.ping(theirs.pod, '10.92.0.1'));
  await theirs.check();
  theirs.result = undefined;
  await theirs.del();
  t.deepEqual(await ifbs(host), []);
});

test('somebody else may filter what the container sends', async (t) => {
  const { bandwidth, host } = await prepare(t, {});
  const { veth } = devices(bandwidth.network.plugins[0]!.prevResult as PrintedResult);
  await host.run(['tc', 'qdisc', 'add', 'dev', veth, 'clsact']);
  await bandwidth.add({ capabilities });
  await t.notThrowsAsync(bandwidth.check({ capabilities }));
});

for (const [what, drift, pattern] of [
  ['the limit on what is received', 'tc qdisc delete dev VETH root', /not limited/],
  [
    'its rate',
    'tc qdisc change dev VETH root tbf rate 1mbit burst 100000 latency 25ms',
    /a rate of 125000, but should have one of 1000000/,
  ],
  ['the interface that the container sends by', 'ip link delete IFB', /is missing/],
  ['that interface down', 'ip link set IFB down', /is down/],
  ['the limit on what is sent', 'tc qdisc delete dev IFB root', /not limited/],
  ['the redirection', 'tc filter delete dev VETH ingress', /not redirected/],
  ['the place for it', 'tc qdisc delete dev VETH ingress', /not redirected/],
] as const)
  test(`CHECK misses ${what}`, async (t) => {
    const host = await makeHost(t);
    const attachment = await attach(host, network);
    await attachment.check();
    const { veth, ifb } = devices(attachment.result!);
    await host.run(drift.replace('VETH', veth).replace('IFB', ifb).split(' '));
    t.regex((await attachment.tryCheck()).error!.msg, pattern);
  });

for (const [what, keys, pattern] of [
  ['a rate of 0', { ingressRate: 0, ingressBurst: 8000 }, /"ingressBurst" is set without "ingressRate"/],
  ['a rate without a burst', { egressRate: 8000 }, /"egressRate" is set without "egressBurst"/],
  [
    'a rate of 2^63',
    { ingressRate: 2 ** 63, ingressBurst: 8000 },
    /"ingressRate" is 9223372036854776000, but/,
  ],
  ['a negative rate', { ingressRate: -8, ingressBurst: 8000 }, /between 0 and/],
  ['a rate that is no number', { ingressRate: '1M', ingressBurst: 8000 }, /must be a whole number/],
  ['a rate below a byte a second', { ingressRate: 7, ingressBurst: 8000 }, /at least 8 bits per second/],
  ['a burst below a byte', { egressRate: 8000, egressBurst: 7 }, /at least 8 bits/],
  ['a burst of 4 GB', { egressRate: 8000, egressBurst: 2 ** 35 }, /less than 4 GB/],
] as const)
  test(`ADD refuses ${what}, and changes nothing`, async (t) => {
    const { bandwidth, host } = await prepare(t, keys);
    const { veth } = devices(bandwidth.network.plugins[0]!.prevResult as PrintedResult);
    const { error } = await bandwidth.tryAdd();
    t.is(error?.code, 999);
    t.regex(error!.msg, pattern);
    t.is(await bucketOf(host, veth), undefined);
    t.deepEqual(await ifbs(host), []);
  });

test('an ADD that fails half-way takes back what it did', async (t) => {
  const { bandwidth, host } = await prepare(t, {});
  const { veth } = devices(bandwidth.network.plugins[0]!.prevResult as PrintedResult);
  await host.run(['tc', 'qdisc', 'add', 'dev', veth, 'clsact']);
  const blocker =
    'filter add dev VETH ingress pref 1 protocol ip u32 match u32 0 0 action mirred egress redirect dev lo'.replace(
      'VETH',
      veth,
    );
  await host.run(['tc', ...blocker.split(' ')]);
  const { error } = await bandwidth.tryAdd({ capabilities });
  t.regex(error!.msg, /Cannot redirect what comes in/);
  t.is(await bucketOf(host, veth), undefined);
  t.deepEqual(await ifbs(host), []);
});

test('an interface that is not an end of a veth pair is refused', async (t) => {
  const { bandwidth } = await prepare(t, {});
  const { pod } = bandwidth;
  await pod.run('ip link add br0 type bridge'.split(' '));
  const { error } = await bandwidth.tryAdd({ capabilities, ifname: 'br0' });
  t.regex(error!.msg, /"br0".*not one end of a veth pair/);
});

test('DEL works when the sandbox is gone, and without limits from the runtime', async (t) => {
  const host = await makeHost(t);
  const attachment = await attach(host, limited({}), { capabilities });
  t.is((await ifbs(host)).length, 1);
  await attachment.pod.remove();
  await attachment.del({ netns: '', capabilities: {} });
  t.deepEqual(await ifbs(host), []);
});

test('DEL without sandbox and result removes what the reference plugin set, though the pair remains', async (t) => {
  const host = await makeHost(t);
  const limits = { egressRate: 80_000_000, egressBurst: 8_000_000 };
  for (const netns of ['', '/run/netns/gone']) {
    const theirs = { ...limited(limits), cniVersion: '1.0.0' };
    const { pod, result } = await attach(host, theirs, { suite: 'reference' });
    const { veth, ifb } = devices(result!);
    t.deepEqual(await ifbs(host), [ifb]);
    await new Attachment(host, pod, { ...theirs, plugins: [theirs.plugins[1]!] }).del({ netns });
    t.deepEqual(await ifbs(host), []);
    t.truthy(await observe.link(host, veth));
  }
});

test('GC removes what no valid attachment of this network owns', async (t) => {
  const host = await makeHost(t);
  const net = limited({});
  await attach(host, net, { capabilities });
  const kept = await attach(host, net, { capabilities });
  const [ptp, bandwidth] = net.plugins as [PluginConf, PluginConf];
  const elsewhere = { ...ptp, ipam: { type: 'host-local', subnet: '10.192.0.0/24' } };
  const other = { ...net, name: 'other', plugins: [elsewhere, bandwidth] };
  const foreign = await attach(host, other, { capabilities });
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, { ...net, plugins: [net.plugins[1]!] }, 'GC', { valid })).exit, 0);
  t.deepEqual((await ifbs(host)).sort(), [kept, foreign].map(({ result }) => devices(result!).ifb).sort());
});

test('STATUS tries what ADD needs, and leaves nothing of it', async (t) => {
  // An agent has capabilities of its own.
  const host = await makeHost(t, { mayHaveAgent: false });
  const status = async (keys: object, capabilities?: string) => {
    const config = { cniVersion: '1.1.0', name: 'net', type: 'bandwidth', ...keys };
    const program = [`${suites.ours}/bandwidth`];
    // Without a capability, the kernel refuses to try anything.
    const argv = capabilities ? ['setpriv', '--bounding-set', capabilities, ...program] : program;
    const env = { CNI_COMMAND: 'STATUS', CNI_PATH: suites.ours };
    return (await host.tryRun(argv, { stdin: JSON.stringify(config), env })).exit;
  };
  const ingress = { ingressRate: 1e6, ingressBurst: 1e6 };
  const egress = { egressRate: 1e6, egressBurst: 1e6 };
  for (const limits of [ingress, egress, { ...ingress, ...egress }]) {
    t.is(await status(limits), 0);
    t.is(await status(limits, '-all'), 1);
  }
  t.deepEqual(await ifbs(host), []);
  // Limits that only a runtime may set need nothing of the kernel as long as it sets none.
  t.is(await status({ capabilities: { bandwidth: true } }, '-all'), 0);
});

test('GC removes an interface that an ADD left without alias when it was killed, and no living one', async (t) => {
  const host = await makeHost(t);
  const net = limited({});
  const ours = await attach(host, net, { capabilities });
  const theirs = await attach(host, { ...net, cniVersion: '1.0.0' }, { capabilities, suite: 'reference' });
  await host.run('ip link add bwp0123456789ab up type ifb'.split(' '));
  await host.run('ip link add ifb7 up type ifb'.split(' '));
  const only = { ...net, name: 'other', plugins: [net.plugins[1]!] };
  t.is((await runNetworkVerb(host, only, 'GC', { valid: [] })).exit, 0);
  const left = [ours, theirs].map(({ result }) => devices(result!).ifb);
  t.deepEqual((await ifbs(host)).sort(), [...left, 'ifb7'].sort());
});

test('a second ADD is refused, and the limits of the living attachment stay', async (t) => {
  const host = await makeHost(t);
  const plain = await attach(host, { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] });
  const before = plain.result!;
  for (const keys of [
    { ingressRate: 800_000, ingressBurst: 80_000 },
    { egressRate: 800_000, egressBurst: 80_000 },
    capabilities.bandwidth,
  ]) {
    const only = { ...limited(keys), plugins: [limited(keys).plugins[1]!] };
    const living = new Attachment(host, plain.pod, only);
    succeeded(await living.tryAdd({}, before));
    const state = await trafficControl(host);
    const { error } = await new Attachment(host, plain.pod, only).tryAdd({}, before);
    t.regex(error!.msg, /already limit.*Run DEL before ADD is tried again/);
    t.deepEqual(await trafficControl(host), state);
    await living.check();
    await living.del();
    await host.tryRun(['tc', 'qdisc', 'delete', 'dev', devices(before).veth, 'root']);
    await host.tryRun(['tc', 'qdisc', 'delete', 'dev', devices(before).veth, 'ingress']);
  }
});

/** All that `tc` knows of the host. */
async function trafficControl(host: Host): Promise<string[]> {
  const names = (await observe.links(host)).map(({ ifname }) => ifname).sort();
  const texts = [await host.run(['tc', 'qdisc', 'show'])];
  for (const name of names)
    texts.push(name, await host.run(['tc', 'filter', 'show', 'dev', name, 'ingress']));
  return texts;
}

for (const foreign of [false, true])
  test(`whichever request fails, ADD leaves nothing${foreign ? ', nor of the filters of others' : ''}`, async (t) => {
    const host = await makeHost(t, { mayHaveAgent: false });
    const plain = await attach(host, { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] });
    if (foreign) {
      const { veth } = devices(plain.result!);
      await host.run(['tc', 'qdisc', 'add', 'dev', veth, 'clsact']);
      await host.run(
        `tc filter add dev ${veth} ingress pref 1 protocol all u32 match u32 0 0 action mirred egress mirror dev lo`.split(
          ' ',
        ),
      );
    }
    const { name, cniVersion } = network;
    const config = {
      ...{ name, cniVersion, type: 'bandwidth', ...capabilities.bandwidth },
      prevResult: plain.result,
    };
    const before = await trafficControl(host);
    let failures = 0;
    for (let when = 1; ; when++) {
      const call = {
        env: addEnvironment(plain.pod),
        stdin: JSON.stringify({ ...config, cniVersion: '1.1.0' }),
      };
      const inject = `inject=sendto:error=ENOBUFS:when=${when}`;
      const { exit, stdout } = await host.tryRun(
        ['strace', '-qq', '-o', '/dev/null', '-e', inject, join(suites.ours, 'bandwidth')],
        call,
      );
      if (exit === 0) break;
      failures++;
      t.regex((JSON.parse(stdout) as { msg: string }).msg, /ENOBUFS/);
      t.deepEqual(await trafficControl(host), before, `after failure ${when}`);
    }
    t.true(failures >= 8, `${failures} failures`);
  });

test('a result that nobody takes leaves no redirection on the filters of others', async (t) => {
  const host = await makeHost(t);
  const plain = await attach(host, { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] });
  await host.run(['tc', 'qdisc', 'add', 'dev', devices(plain.result!).veth, 'clsact']);
  const before = await trafficControl(host);
  const config = {
    ...{ name: network.name, cniVersion: '1.1.0', type: 'bandwidth', ...capabilities.bandwidth },
    prevResult: plain.result,
  };
  const { exit } = await host.tryRun(['sh', '-c', '"$0" >/dev/full', join(suites.ours, 'bandwidth')], {
    env: addEnvironment(plain.pod),
    stdin: JSON.stringify(config),
  });
  t.is(exit, 1);
  t.deepEqual(await trafficControl(host), before);
});
