import test from 'ava';
import { attach, sample } from '../support/chain.ts';
import { makeHost, Namespace } from '../support/host.ts';
import { addresses, ping, routes } from '../support/observe.ts';
import { type Outcome, type PluginCall, runPlugin, type Suite } from '../support/plugin.ts';

const here = new Namespace([]);
const run = (command: string, keys: object, call: PluginCall = {}, suite: Suite = 'ours'): Promise<Outcome> =>
  runPlugin(here, 'static', command, {
    containerId: 'one',
    netns: '/run/netns/unused',
    suite,
    config: { cniVersion: '1.0.0', name: 'net', type: 'bridge', ...keys },
    ...call,
  });
const ipam = {
  type: 'static',
  addresses: [
    { address: '10.10.0.1/24', gateway: '10.10.0.254' },
    { address: 'fd00:1::1/64', gateway: 'fd00:1::fffe' },
  ],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '192.168.0.0/16', gw: '10.10.5.1' }],
  dns: { nameservers: ['8.8.8.8'], domain: 'example.com', search: ['example.com'] },
};

const several = { type: 'static', addresses: [{ address: '10.10.0.1/24' }, { address: '10.10.0.2/24' }] };

test('the same input gives the same as the reference', async (t) => {
  const cases: [object, PluginCall?][] = [
    [{ ipam }],
    [{ ipam: { type: 'static' } }],
    [{ ipam, cniVersion: '0.3.1' }],
    [{ ipam, cniVersion: '0.2.0' }],
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5/24,fd00::5/64;GATEWAY=10.1.0.1,fd00::1' }],
    [{ ipam }, { args: 'IP=10.1.0.5/24;IgnoreUnknown=1;K8S=x' }],
    [{ ipam, runtimeConfig: { ips: ['10.3.0.1/24'] } }],
    [{ ipam, args: { cni: { ips: ['10.4.0.1/24'] } } }],
    [{ ipam, runtimeConfig: { ips: ['10.3.0.1/24'] }, args: { cni: { ips: ['10.4.0.1/24'] } } }],
    [{ ipam: { type: 'static', addresses: [{ address: '10.10.0.1' }] } }],
    [{ ipam: { type: 'static', addresses: [{ address: 'nowhere/24' }] } }],
    [{ ipam: { type: 'static', addresses: [{ address: '' }] } }],
    [{ ipam: { ...ipam, addresses: [{ address: '10.10.0.1/24', gateway: '' }] } }],
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5' }],
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5/24;GATEWAY=nowhere' }],
    [{ ipam, runtimeConfig: { ips: ['nowhere'] } }],
    // Blanks around the addresses, and empty elements.
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5/24, fd00::5/64 ;GATEWAY= 10.1.0.1 , fd00::1' }],
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5/24,' }],
    [{ ipam: { type: 'static' } }, { args: 'IP=10.1.0.5/24;GATEWAY=,' }],
    // Several addresses of a family, which old results have no room for.
    [{ ipam: several, cniVersion: '0.2.0' }],
    [{ ipam: several, cniVersion: '0.1.0' }],
    [{ ipam: several, cniVersion: '0.3.0' }],
    [{ ipam: { type: 'static' }, cniVersion: '0.2.0' }, { args: 'IP=10.1.0.5/24,10.1.0.6/24' }],
    [{ ipam, cniVersion: '0.2.0', runtimeConfig: { ips: ['10.3.0.1/24', '10.3.0.2/24'] } }],
    // No "ipam" at all.
    [{}],
    [{}, { args: 'IP=10.1.0.5/24' }],
  ];
  for (const [keys, call] of cases) {
    const [ours, theirs] = [await run('ADD', keys, call), await run('ADD', keys, call, 'reference')];
    const what = `${JSON.stringify([keys, call])}\n${ours.stdout}\n${theirs.stdout}`;
    const plain = ({ result }: Outcome) => result && { ...result, dns: { ...result.dns } };
    t.deepEqual(
      [ours.exit, ours.error?.code, plain(ours)],
      [theirs.exit, theirs.error?.code, plain(theirs)],
      what,
    );
  }
});

test('CHECK finds an address or gateway that was not given', async (t) => {
  const { result } = await run('ADD', { ipam });
  t.is((await run('CHECK', { ipam, prevResult: result })).exit, 0);
  const other = { ...ipam, addresses: [{ address: '10.10.0.1/24', gateway: '10.10.0.1' }] };
  t.regex(
    (await run('CHECK', { ipam: other, prevResult: result })).error?.msg ?? '',
    /gateway 10\.10\.0\.254 where/,
  );
  const another = { ...ipam, addresses: [{ address: '10.10.0.2/24' }] };
  t.regex((await run('CHECK', { ipam: another, prevResult: result })).error?.msg ?? '', /not given address/);
  t.is((await run('DEL', { ipam })).exit, 0);
});

test('the sample network gives its address', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, sample('70-static.conflist'));
  t.deepEqual(await addresses(one.pod, 'eth0'), ['10.95.0.10/24']);
  t.true(await ping(one.pod, '10.95.0.1'));
  t.is((await routes(one.pod)).find(({ dst }) => dst === 'default')?.gateway, '10.95.0.1');
  await one.check();
  await one.del();
});
