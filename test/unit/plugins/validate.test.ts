/** What plugins refuse, and say of themselves, without looking at the host. */

import test from 'ava';
import type { Plugin } from '../../../lib/cni/plugin.ts';
import { plugin as bandwidth } from '../../../plugins/bandwidth.ts';
import { plugin as loopback } from '../../../plugins/loopback.ts';
import { plugin as sbr } from '../../../plugins/sbr.ts';
import { plugin as tuning } from '../../../plugins/tuning.ts';
import { plugin as vrf } from '../../../plugins/vrf.ts';

function configure<C>(plugin: Plugin<C>, keys: object) {
  const base = { cniVersion: '1.1.0', name: 'n', type: plugin.name };
  return { ...base, ...plugin.config.decode({ ...base, ...keys }, '') } as never;
}

for (const [plugin, keys, pattern] of [
  [bandwidth, { ingressRate: 8000 }, /"ingressRate" is set without "ingressBurst"\. Set both or neither/],
  [bandwidth, { runtimeConfig: { bandwidth: { egressBurst: 8 } } }, /"egressBurst" is set without/],
  [tuning, { sysctl: { 'kernel.hostname': 'x' } }, /only settings that begin with "net\."/],
  [tuning, { args: { cni: { sysctl: { 'net/../x': '1' } } } }, /not the name of a kernel setting/],
  [tuning, { mac: 'zz' }, /"zz" is not a valid MAC address/],
  [sbr, { gateways: ['10.0.0.1', '10.0.0.2'] }, /only one gateway of each family/],
  [vrf, { vrfname: 'a/b' }, /"vrfname" is "a\/b", which/],
  [vrf, { vrfname: 'x'.repeat(16) }, /"vrfname"/],
] as [Plugin<never>, object, RegExp][])
  test(`${plugin.name} refuses ${JSON.stringify(keys)}`, (t) => {
    t.throws(() => plugin.validate!(configure(plugin, keys)), { message: pattern });
  });

for (const [plugin, keys] of [
  [bandwidth, {}],
  [bandwidth, { ingressRate: 8000, ingressBurst: 8000 }],
  [tuning, { sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' }, mac: '02:00:00:00:00:01' }],
  [sbr, { gateways: ['10.0.0.1', 'fd00::1'] }],
  [vrf, { vrfname: 'red', table: 5 }],
] as [Plugin<never>, object][])
  test(`${plugin.name} takes ${JSON.stringify(keys)}, and tells what it does with it`, (t) => {
    t.notThrows(() => plugin.validate!(configure(plugin, keys)));
    const steps = plugin.explain!(configure(plugin, keys)).filter((step) => step !== '');
    t.true(steps.length > 0);
    for (const step of steps) t.regex(step, /^[A-Z]((?!undefined).)*[^.]$/);
  });

test('bandwidth is of use only with its capability, or limits of its own; loopback needs nothing', (t) => {
  t.is(bandwidth.capability, 'bandwidth');
  t.deepEqual(loopback.explain!({} as never), ['Brings up "lo" in the container']);
});
