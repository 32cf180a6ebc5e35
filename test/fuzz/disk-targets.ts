/** What lies on disk: anything may be in a file, or in place of one. */

import { join } from 'node:path';
import { readCached, removeCached } from '../../cli/libcni/cache.ts';
import { readStoredLease } from '../../ipam/dhcp/stored-lease.ts';
import { parseDetails, parseName } from '../../lib/firewall/claim-file.ts';
import {
  listStateFiles,
  readStateFile,
  removeStateFile,
  removeUnfinished,
  writeStateFile,
} from '../../lib/state-file.ts';
import { formatConfig, formatHosts, parseConfig, parseHosts } from '../../plugins/dnsname/records.ts';
import { SavedConfigs } from '../../plugins/flannel/saved-config.ts';
import { readSubnetEnv } from '../../plugins/flannel/subnet-env.ts';
import { type Backup, Backups } from '../../plugins/tuning/backups.ts';
import { answerOf, environmentOf, plugins } from './calls.ts';
import { guarded, plant, plantings } from './plant.ts';
import { mayRefuse, place, type Target } from './target.ts';

const attachment = { network: 'n', containerId: 'c1', ifname: 'eth0' };

const hostLocal = plugins.find(({ name }) => name === 'host-local')!;

async function callHostLocal(dataDir: string): Promise<void> {
  const ipam = { type: 'host-local', dataDir, ranges: [[{ subnet: '10.1.0.0/29' }]] };
  const config = { cniVersion: '1.1.0', name: 'n', type: 'x', ipam, 'cni.dev/valid-attachments': [] };
  for (const verb of ['ADD', 'CHECK', 'DEL', 'GC'])
    await answerOf(hostLocal, JSON.stringify(config), environmentOf(verb));
}

const hostLocalFiles = [
  'n',
  'n/10.1.0.2',
  'n/last_reserved_ip.0',
  'n/lock',
  '.owners',
  '.owners/n',
  '.owners/n/stamp',
];

const backup = {
  ...{ mac: '02:00:00:00:00:01', promisc: true, mtu: 1500, allmulti: false, txQLen: 1000 },
  ...{ sysctl: { a: '1' }, network: 'n', boot: '' },
};

/** @throws Error when a value read from a backup could not be restored, as it has another type. */
function requireBackup(read: Backup | undefined): void {
  if (read === undefined) return;
  for (const [key, value] of Object.entries(read)) {
    const wanted = typeof backup[key as keyof typeof backup];
    const isCount = wanted !== 'number' || (Number.isInteger(value) && (value as number) >= 0);
    if (typeof value !== wanted || !isCount || Array.isArray(value))
      throw new Error(`"${key}" was read as ${JSON.stringify(value)}`);
  }
  const { mac = backup.mac, sysctl = {} } = read;
  if (!/^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(mac)) throw new Error(`"${mac}" was read as a MAC address`);
  for (const value of Object.values(sysctl))
    if (typeof value !== 'string') throw new Error(`${value} was read as a sysctl`);
}

export const diskTargets: readonly Target[] = [
  {
    name: 'host-local-disk',
    // First a byte for the file, then one for what is planted there, then its content.
    samples: hostLocalFiles.flatMap((_, file) =>
      plantings.map((what) => Buffer.from([file, what, ...Buffer.from('c1\r\neth0')])),
    ),
    async run(input, directory) {
      const [outside, check] = guarded(directory);
      const [file = 0, what = 0] = input;
      const name = hostLocalFiles[file % hostLocalFiles.length]!;
      plant(join(directory, name), what, outside, input.subarray(2));
      await callHostLocal(directory);
      check();
    },
  },
  {
    name: 'state-file',
    samples: [0, 1].flatMap((file) => plantings.map((what) => Buffer.from([file, what, 65]))),
    run(input, directory) {
      const [outside, check] = guarded(directory, [], 'outside');
      const [file = 0, what = 0] = input;
      const state = join(directory, 'state');
      plant(file % 2 ? state : join(state, 'file'), what, outside, input.subarray(2));
      for (const name of ['file', 'canary'])
        mayRefuse(() => {
          if (readStateFile(join(state, name)) === 'outside')
            throw new TypeError('Something outside was read');
        });
      mayRefuse(() => writeStateFile(join(state, 'file'), 'new'));
      mayRefuse(() => listStateFiles(state));
      mayRefuse(() => removeStateFile(join(state, 'canary')));
      mayRefuse(() => removeUnfinished(state));
      check();
    },
  },
  {
    name: 'flannel-subnet-env',
    samples: [
      'FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      'FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n',
    ],
    run(input, directory) {
      place(join(directory, 'subnet.env'), input);
      mayRefuse(() => readSubnetEnv(join(directory, 'subnet.env')));
    },
  },
  {
    name: 'flannel-saved-config',
    samples: ['{"name":"n","type":"bridge","ipam":{"type":"host-local"}}'],
    run(input, directory) {
      place(join(directory, 'c1'), input);
      const saved = new SavedConfigs(directory);
      saved.load('c1', 'n');
      saved.removeOthers('n', new Set(['c2']), () => {});
      saved.save('c1', { name: 'n', type: 'bridge' });
      if (saved.load('c1', 'n')?.type !== 'bridge') throw new Error('What was saved cannot be loaded');
      saved.remove('c1', 'n');
    },
  },
  {
    name: 'tuning-backup',
    samples: [
      ...[null, 1, true, 'text', [1], {}].flatMap((value) =>
        Object.keys(backup).map((key) => JSON.stringify({ ...backup, [key]: value })),
      ),
      JSON.stringify({ ...backup, sysctl: { a: 1 } }),
      JSON.stringify({ ...backup, mtu: -1 }),
      ...['[]', 'null', '1'],
    ],
    run(input, directory) {
      place(join(directory, 'c1_eth0.json'), input);
      const backups = new Backups(directory);
      requireBackup(backups.load(attachment));
      mayRefuse(() => backups.removeOthers('n', [], () => {}));
      backups.save(attachment, { network: 'n', mtu: 1400 });
      if (backups.load(attachment)?.mtu !== 1400) throw new Error('What was saved cannot be loaded');
    },
  },
  {
    name: 'firewall-claim',
    samples: [
      '10.1.0.2_0123456789abcdef-0123456789abcdef.json',
      '{"backends":["iptables"],"zone":"trusted"}',
    ],
    run(input) {
      parseName(input.toString('utf8'));
      mayRefuse(() => parseDetails(input.toString('utf8')));
    },
  },
  {
    name: 'dhcp-lease',
    samples: [
      JSON.stringify({
        owner: { network: 'n', containerId: 'c', ifname: 'e', netns: '/n' },
        options: { clientId: [0, 1], request: [1, 3], provide: [[12, [65]]] },
        server: '10.1.0.1',
        times: { renewAt: 1, rebindAt: 2, expiresAt: 3 },
        result: {},
      }),
    ],
    run: (input) => mayRefuse(() => readStoredLease(input.toString('utf8'))),
  },
  {
    name: 'libcni-cache',
    samples: [
      '{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"n","result":{}}',
    ],
    run(input, directory) {
      place(join(directory, 'results/n-c1-eth0'), input);
      mayRefuse(() => readCached(directory, attachment));
      mayRefuse(() => removeCached(directory, attachment));
    },
  },
  {
    name: 'dnsname-files',
    samples: [
      '10.1.0.2\tweb web.d.svc.cluster.local\t# cni c1/eth0\nfd00::2 a\n',
      'listen-address=10.1.0.1\nsrv-host=_80._tcp.web.d,web.d,80,0,0\t# cni c1/eth0\nlocal=/d/\n',
    ],
    run(input) {
      const text = input.toString('utf8');
      const hosts = formatHosts(parseHosts(text));
      if (formatHosts(parseHosts(hosts)) !== hosts) throw new Error(`Written and read: ${hosts}`);
      const settings = { domain: 'd', upstreams: ['192.0.2.53'] };
      const config = formatConfig(parseConfig(text), settings, '/run/n');
      if (formatConfig(parseConfig(config), settings, '/run/n') !== config)
        throw new Error(`Written and read: ${config}`);
      // Only lines of known forms may get into the configuration of dnsmasq.
      const known =
        /^(?:listen-address=[0-9a-f.:]+|srv-host=[\w.-]+,[\w.-]+,\d+,0,0(?:\t# cni [\w.-]+\/[^\s/:]+)?)$/;
      const own = formatConfig({ services: [], servers: [] }, settings, '/run/n').split('\n');
      for (const line of config.split('\n').filter((one) => !own.includes(one)))
        if (!known.test(line)) throw new Error(`Taken from the file: ${line}`);
    },
  },
];
