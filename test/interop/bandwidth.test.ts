/** bandwidth beside the reference plugin: same results, and each checks and deletes what the other made. */

import test from 'ava';
import { Attachment, attach, sample, suitePairs } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { type PrintedResult, suites } from '../support/plugin.ts';

const network = sample('51-bandwidth.conflist');

/** A pod without limits, and bandwidth to run on it. */
async function prepare(host: Host, keys: object = {}): Promise<Attachment> {
  const { pod, result } = await attach(host, { ...network, plugins: [network.plugins[0]!] });
  const only = { ...network, plugins: [{ ...network.plugins[1]!, prevResult: result, ...keys }] };
  return new Attachment(host, pod, only);
}

for (const [first, second] of suitePairs)
  test(`limited by ${first}, checked and deleted by ${second}`, async (t) => {
    const host = await makeHost(t);
    const bandwidth = await prepare(host);
    const result = await bandwidth.add({ suite: first });
    const ifb = result.interfaces!.at(-1)!.name;
    t.truthy(await observe.link(host, ifb));
    await bandwidth.check({ suite: second });
    await bandwidth.del({ suite: second });
    t.is(await observe.link(host, ifb), undefined);
  });

/** What containerd and CRI-O pass as burst, which overflows 32 bits at these rates. */
const runtimeBursts = [2 ** 32 - 1, 8 * (2 ** 32 - 1) - 1];

test('CHECK and repair take a limit with the burst of a runtime as the reference makes it', async (t) => {
  const plugins = [network.plugins[0]!, { type: 'bandwidth', capabilities: { bandwidth: true } }];
  const { host, cni, tryCni, attach } = await operatorOf(t, plugins, { cniVersion: '1.0.0' });
  for (const rate of [1e6, 10e6, 1e9])
    for (const burst of runtimeBursts) {
      const bandwidth = { ingressRate: rate, ingressBurst: burst, egressRate: rate, egressBurst: burst };
      const env = { CAP_ARGS: JSON.stringify({ bandwidth }) };
      const pod = await attach('net', { ...env, CNI_PATH: suites.reference });
      await cni(['check', 'net', pod.netns], env);
      const repaired = await tryCni(['repair', '--dry-run']);
      t.is(repaired.exit, 0, `${rate} ${burst}: ${repaired.stdout}`);
      const veth = /\bveth\w+/.exec(await host.run(['tc', 'qdisc', 'show']))![0];
      await host.run([
        'tc',
        'qdisc',
        'change',
        'dev',
        veth,
        'root',
        'tbf',
        'rate',
        '2mbit',
        'burst',
        '10k',
        'latency',
        '9ms',
      ]);
      const checked = await tryCni(['check', 'net', pod.netns], env);
      t.regex(checked.stdout + checked.stderr, /has a rate of 250000, but should have one of/);
      await cni(['del', 'net', pod.netns], env);
    }
});

/** Results without the MAC addresses of new interfaces, which are random. */
function settled({ dns = {}, interfaces = [], ...rest }: PrintedResult): object {
  return { ...rest, dns, interfaces: interfaces.map(({ mac: _, ...entry }) => entry) };
}

test('results and queues are the same', async (t) => {
  const host = await makeHost(t);
  const bandwidth = await prepare(host);
  const seen = [];
  for (const suite of ['reference', 'ours'] as const) {
    const result = await bandwidth.add({ suite });
    const veth = result.interfaces![0]!.name;
    seen.push([
      settled(result),
      JSON.parse(await host.run(['tc', '-j', 'qdisc'])).map(
        ({ refcnt: _, ...qdisc }: { refcnt: number }) => qdisc,
      ),
      (await host.run(['tc', 'filter', 'show', 'dev', veth, 'ingress'])).match(
        / pref 1 u32 |match 0+\/0+ at 0/g,
      ),
    ]);
    await bandwidth.del({ suite });
    for (const parent of ['root', 'ingress']) await host.run(['tc', 'qdisc', 'delete', 'dev', veth, parent]);
  }
  t.deepEqual(seen[1], seen[0]);
});

test('errors have the same code', async (t) => {
  const host = await makeHost(t);
  for (const keys of [
    { ingressRate: 0 },
    { egressBurst: 0 },
    { ingressRate: 'fast' },
    { ingressBurst: 2 ** 36 },
    { prevResult: undefined },
  ]) {
    const bandwidth = await prepare(host, keys);
    const codes = [];
    for (const suite of ['reference', 'ours'] as const)
      codes.push((await bandwidth.tryAdd({ suite })).error?.code);
    t.is(codes[1], codes[0], JSON.stringify(keys));
    t.truthy(codes[0]);
  }
});
