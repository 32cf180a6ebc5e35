/** bandwidth beside the reference plugin: same results, and each checks and deletes what the other made. */

import test from 'ava';
import { Attachment, attach, sample, suitePairs } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import type { PrintedResult } from '../support/plugin.ts';

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

/** Results without what is random: addresses of interfaces made anew. */
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
