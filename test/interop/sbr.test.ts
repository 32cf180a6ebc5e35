/** sbr beside the reference plugin: same rules and routes, and each removes the other's. */

import test from 'ava';
import { Attachment, attach, sample, suitePairs } from '../support/chain.ts';
import { type Host, makeHost, type Namespace } from '../support/host.ts';

const network = sample('52-sbr.conflist');

async function prepare(host: Host, keys: object = {}): Promise<Attachment> {
  const { pod, result } = await attach(host, { ...network, plugins: [network.plugins[0]!] });
  const only = { ...network, plugins: [{ type: 'sbr', prevResult: result, ...keys }] };
  return new Attachment(host, pod, only);
}

/** Rules and routes, with the last byte of the pod's addresses left out. */
async function routing(ns: Namespace): Promise<string[]> {
  const lines = [];
  for (const family of ['-4', '-6'])
    for (const what of ['rule', 'route show table all'])
      lines.push(...(await ns.run(['ip', family, ...what.split(' ')])).split('\n'));
  return (
    lines
      // The reference plugin copies IPv6 subnets to the tables of IPv4 addresses as well, where they are of
      // no use.
      .filter((line) => !/table local|fe80::|ff00::|^fd00.* table 100 /.test(line))
      .map((line) => line.replace(/(10\.93\.0\.|10:93::)[2-9]/g, '$1x').trim())
      .sort()
  );
}

test('rules, routes and results are the same', async (t) => {
  const host = await makeHost(t);
  const seen = [];
  for (const suite of ['reference', 'ours'] as const) {
    const sbr = await prepare(host);
    const given = sbr.network.plugins[0]!.prevResult;
    const result = await sbr.add({ suite });
    t.deepEqual({ dns: {}, ...result }, { dns: {}, ...(given as object) } as typeof result);
    seen.push(await routing(sbr.pod));
  }
  t.deepEqual(seen[1], seen[0]);
});

for (const [first, second] of suitePairs)
  test(`routed by ${first}, checked and deleted by ${second}`, async (t) => {
    const host = await makeHost(t);
    const sbr = await prepare(host);
    await sbr.add({ suite: first });
    await sbr.check({ suite: second });
    await sbr.del({ suite: second });
    t.false((await routing(sbr.pod)).some((line) => /lookup 1/.test(line)));
  });

test('errors have the same code', async (t) => {
  const host = await makeHost(t);
  for (const keys of [
    { prevResult: undefined },

    { prevResult: { cniVersion: '1.0.0' } },
  ]) {
    const sbr = await prepare(host, keys);
    const codes = [];
    for (const suite of ['reference', 'ours'] as const) codes.push((await sbr.tryAdd({ suite })).error?.code);
    t.is(codes[1], codes[0], JSON.stringify(keys));
    t.truthy(codes[0]);
  }
});
