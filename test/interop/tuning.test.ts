/** tuning beside the reference plugin: same results, and each undoes what the other did. */

import test from 'ava';
import { Attachment, attach, sample, suitePairs } from '../support/chain.ts';
import { makeHost, type Pod } from '../support/host.ts';
import * as observe from '../support/observe.ts';

const whole = sample('50-tuning.conflist');
/** The sample without what the older plugin does not know: "txQLen", and on CHECK "IFNAME". */
const { txQLen: _, ...known } = whole.plugins[1]!;
const network = {
  ...whole,
  plugins: [whole.plugins[0]!, { ...known, sysctl: { 'net.core.somaxconn': '500' } }],
};
const capabilities = { mac: '02:11:22:33:44:55' };

async function propertiesOf(pod: Pod): Promise<unknown[]> {
  const { address, mtu, flags } = (await observe.link(pod, 'eth0'))!;
  return [address, mtu, flags.includes('PROMISC'), flags.includes('ALLMULTI')];
}

for (const [first, second] of suitePairs)
  test(`tuned by ${first}, checked and put back by ${second}`, async (t) => {
    const host = await makeHost(t);
    const { pod, result } = await attach(host, { ...network, plugins: [network.plugins[0]!] });
    const before = await propertiesOf(pod);
    const only = { ...network, plugins: [{ ...network.plugins[1]!, prevResult: result }] };
    const tuning = new Attachment(host, pod, only, { capabilities });

    await tuning.add({ suite: first });
    t.is((await observe.link(pod, 'eth0'))?.mtu, 1400);
    await tuning.check({ suite: second });
    await tuning.del({ suite: second });
    t.deepEqual(await propertiesOf(pod), before);
    t.deepEqual(observe.files(host, '/run/cni/tuning'), {});
  });

for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0'])
  test(`results of cniVersion ${cniVersion} are the same`, async (t) => {
    const host = await makeHost(t);
    const plain = { ...network, cniVersion, plugins: [network.plugins[0]!] };
    const { pod, result } = await attach(host, plain);
    const only = { ...network, cniVersion, plugins: [{ ...network.plugins[1]!, prevResult: result }] };
    const results = [];
    for (const suite of ['reference', 'ours'] as const)
      results.push(await new Attachment(host, pod, only, { capabilities, suite }).add());
    const [theirs, ours] = results;
    // Older reference plugins print an empty "dns" even where the specification leaves it out.
    t.deepEqual({ dns: {}, ...ours }, { dns: {}, ...theirs! });
  });

test('errors have the same code', async (t) => {
  const host = await makeHost(t);
  const { pod, result } = await attach(host, { ...network, plugins: [network.plugins[0]!] });
  for (const keys of [
    { sysctl: { 'kernel.hostname': 'x' } },
    { mac: 'nonsense' },
    { mtu: 'large' },
    { prevResult: undefined },
  ]) {
    const only = { ...network, plugins: [{ type: 'tuning', mtu: 1300, prevResult: result, ...keys }] };
    const codes = [];
    for (const suite of ['reference', 'ours'] as const) {
      const { error } = await new Attachment(host, pod, only, { suite }).tryAdd();
      codes.push(error?.code);
    }
    t.is(codes[1], codes[0], JSON.stringify(keys));
  }
});
