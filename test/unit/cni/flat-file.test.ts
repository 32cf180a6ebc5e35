import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { config, sharedIpam } from '../../../ipam/whereabouts/config.ts';
import { resolvePools } from '../../../ipam/whereabouts/pools.ts';
import { withFlatFile } from '../../../lib/cni/flat-file.ts';
import { databaseKeys } from '../../../lib/cni/open-vswitch.ts';
import { decode, object } from '../../../lib/cni/schema.ts';
import { config as ovsConfig, patienceOf } from '../../../plugins/ovs/settings.ts';

function fileWith(t: ExecutionContext, keys: object): string {
  const directory = mkdtempSync(join(tmpdir(), 'flat-file-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'flat.conf');
  writeFileSync(file, JSON.stringify(keys));
  return file;
}

/** What whereabouts is configured with. */
function ipamOf(configuration_path: string, own: object) {
  return sharedIpam(decode(object(config), { ipam: { type: 'whereabouts', configuration_path, ...own } }));
}

test("empty values of the network leave the file's in force, within objects as well", (t) => {
  const file = fileWith(t, {
    kubernetes: { kubeconfig: '/etc/kubeconfig', k8s_api_root: 'https://192.0.2.1' },
    ...{ network_name: 'shared', quarantine: 60, gateway: '10.70.0.1', exclude: ['10.70.0.7'] },
  });
  for (const [own, wanted] of [
    [{}, '/etc/kubeconfig'],
    [{ kubernetes: {} }, '/etc/kubeconfig'],
    [{ kubernetes: { kubeconfig: '' } }, '/etc/kubeconfig'],
    [{ kubernetes: { k8s_api_root: 'https://192.0.2.2' } }, '/etc/kubeconfig'],
    [{ kubernetes: { kubeconfig: '/etc/own' } }, '/etc/own'],
  ] as const)
    t.is(ipamOf(file, own).kubernetes?.kubeconfig, wanted);
  const own = { range: '10.70.0.0/24', network_name: '', quarantine: 0, exclude: [], gateway: '' };
  const ipam = ipamOf(file, own);
  t.like(ipam, { network_name: 'shared', quarantine: 60, exclude: ['10.70.0.7'] });
  t.is(`${ipam.gateway}`, '10.70.0.1');
  const other = ipamOf(file, { gateway: '10.70.0.2', network_name: 'mine' });
  t.is(`${other.gateway}`, '10.70.0.2');
  t.is(other.network_name, 'mine');
});

test('keys for Open vSwitch: an empty socket and numbers of 0 leave the file in force', (t) => {
  const file = fileWith(t, { socket_file: 'tcp:192.0.2.1:6640', link_state_check_retries: 9 });
  const own = { configuration_path: file, socket_file: '', link_state_check_retries: 0 };
  t.is(withFlatFile(own, object(databaseKeys), []).socket_file, 'tcp:192.0.2.1:6640');
  t.is(patienceOf(withFlatFile(own, object(ovsConfig), [])), 9 * 600);
  t.is(patienceOf({ link_state_check_retries: 0, link_state_check_interval: 0 }), 5 * 600);
});

test('an empty range beside others is none', (t) => {
  const pools = resolvePools({ type: 'whereabouts', range: '', ipRanges: [{ range: '10.70.0.0/24' }] });
  t.deepEqual(
    pools.map(({ subnet }) => `${subnet}`),
    ['10.70.0.0/24'],
  );
});
