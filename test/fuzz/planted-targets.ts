/** Directories of files, with links, FIFOs and the like in place of the files or of the directory itself. */

import { createHash } from 'node:crypto';
import { lutimesSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { listCache, readCached, removeCached, writeCached } from '../../cli/libcni/cache.ts';
import { networkFiles, readNetworkFile } from '../../cli/libcni/conflist.ts';
import { checkFile } from '../../cli/validate/file.ts';
import { LeaseFiles } from '../../ipam/dhcp/lease-files.ts';
import { Claims } from '../../lib/firewall/claims.ts';
import { attachmentTag } from '../../lib/firewall/names.ts';
import { Address } from '../../lib/ip.ts';
import { listenOn } from '../../lib/kernel/listen.ts';
import { acquireLock } from '../../lib/kernel/lock.ts';
import { SavedConfigs } from '../../plugins/flannel/saved-config.ts';
import { readSubnetEnv } from '../../plugins/flannel/subnet-env.ts';
import { Backups } from '../../plugins/tuning/backups.ts';
import { suite } from './calls.ts';
import { guarded, plant, plantings } from './plant.ts';
import { withDaemon, withoutStack } from './socket-targets.ts';
import { mayRefuse, requireRefusal, type Target } from './target.ts';

const attachment = { network: 'n', containerId: 'c1', ifname: 'eth0' };

/** What files outside hold. */
const secret = 'not to be read';

/** A directory in which something keeps files. */
interface Store {
  readonly name: string;
  /** Its path below the target's own directory. */
  readonly directory: string;
  /** Whether it is an operator's, who may have made it a link to elsewhere. */
  readonly mayBeLink?: true;
  /** Names of files in it. */
  readonly files: readonly string[];
  /** What such a file may hold. */
  readonly content: string;
  /** What a file outside holds, which must not be taken for the store's own: it contains {@link secret}. */
  readonly foreign?: string;
  /** What is done with it, each separately; they return what they read. */
  readonly uses: readonly ((directory: string) => unknown)[];
}

const claimFile = `10.1.0.2_${attachmentTag(attachment)}.json`;
const claimed = [Address.parse('10.1.0.2')];
const leaseFile = `${createHash('sha256').update('key').digest('hex')}.json`;
const cacheEntry = {
  kind: 'cniCacheV1',
  containerId: 'c1',
  config: 'e30=',
  ifName: 'eth0',
  networkName: 'n',
  result: {},
};
const cachedAttachment = {
  ...attachment,
  config: Buffer.from('{}'),
  netns: '/n',
  args: [],
  capabilityArgs: {},
  result: {},
};
const released = { known: claimed, inUse: true, isHeld: () => false };

const stores: readonly Store[] = [
  {
    name: 'flannel-planted',
    directory: 'flannel',
    files: ['c1', 'n-c1', `c1.${process.pid}.tmp`, 'c1.1.tmp', 'subnet.env'],
    content: '{"name":"n","type":"bridge"}',
    foreign: `{"name":"n","type":"${secret}"}`,
    uses: [
      (path) => new SavedConfigs(path).load('c1', 'n'),
      (path) => new SavedConfigs(path).save('c1', { name: 'n', type: 'bridge' }),
      (path) => new SavedConfigs(path).removeOthers('n', new Set(['c2']), () => {}),
      (path) => new SavedConfigs(path).remove('c1', 'n'),
      (path) => readSubnetEnv(join(path, 'subnet.env')),
    ],
  },
  {
    name: 'tuning-planted',
    directory: 'tuning',
    files: ['c1_eth0.json', `c1_eth0.json.${process.pid}.tmp`, 'c2_eth0.json'],
    content: '{"mtu":1500,"network":"n"}',
    foreign: `{"sysctl":{"a":"${secret}"},"network":"n"}`,
    uses: [
      (path) => new Backups(path).load(attachment),
      (path) => new Backups(path).save(attachment, { network: 'n', mtu: 1400 }),
      (path) => new Backups(path).removeOthers('n', [], () => {}),
      (path) => new Backups(path).remove(attachment),
    ],
  },
  {
    name: 'firewall-planted',
    directory: 'firewall',
    files: [
      claimFile,
      `${claimFile}.${process.pid}.tmp`,
      claimFile.replace('json', 'leaving'),
      '../firewall.lock',
    ],
    content: '{"network":"n","containerId":"c1","ifname":"eth0","backends":["iptables"]}',
    foreign: `{"backends":["iptables"],"zone":"${secret}"}`,
    uses: [
      (path) => {
        const claims = new Claims(() => {}, path);
        return claims.of(attachment).map((claim) => claims.read(claim));
      },
      (path) => new Claims(() => {}, path).take(attachment, claimed, { backends: ['iptables'] }),
      (path) => new Claims(() => {}, path).ofBackend('iptables'),
      (path) => new Claims(() => {}, path).removeUnfinished(),
      (path) => {
        const claims = new Claims(() => {}, path);
        return claims.release(claims.stale('n', []), released, async () => {});
      },
      (path) => {
        const claims = new Claims(() => {}, path);
        return claims.release(claims.of(attachment), released, async () => {});
      },
    ],
  },
  {
    name: 'dhcp-planted',
    directory: 'dhcp-leases',
    files: [leaseFile, `${leaseFile}.${process.pid}.tmp`, 'other'],
    content: '{}',
    foreign: secret,
    uses: [
      (path) => {
        const read: string[] = [];
        new LeaseFiles(path).restoreAll(
          (text) => read.push(text) === 0,
          () => {},
        );
        return read;
      },
      (path) => new LeaseFiles(path).save('key', '{}'),
      (path) => new LeaseFiles(path).remove('key'),
    ],
  },
  {
    name: 'cache-planted',
    directory: 'results',
    files: ['n-c1-eth0', `.${process.pid}.tmp`, 'n-c2-eth0', 'n-eth0'],
    content: JSON.stringify({ ...cacheEntry, containerId: 'c1/../../../outside/n' }),
    foreign: JSON.stringify({ ...cacheEntry, result: { secret } }),
    uses: [
      (path) => readCached(join(path, '..'), attachment),
      (path) => listCache(join(path, '..')),
      (path) => writeCached(join(path, '..'), cachedAttachment),
      (path) => removeCached(join(path, '..'), attachment),
      (path) => {
        for (const { attachment: listed } of listCache(join(path, '..')))
          if (listed) removeCached(join(path, '..'), listed);
      },
    ],
  },
  {
    name: 'networks-planted',
    directory: 'net.d',
    mayBeLink: true,
    files: ['10-a.conflist', '20-b.conf'],
    content: '{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"bridge","ipam":{"type":"static"}}]}',
    uses: [
      (path) => networkFiles(path).map((file) => mayRefuse(() => readNetworkFile(file))),
      async (path) => {
        for (const file of networkFiles(path))
          await checkFile(file, { suite, isInstalled: undefined, hostPath: undefined, looksAtUse: true });
      },
    ],
  },
  {
    name: 'locks-and-sockets-planted',
    directory: 'run',
    mayBeLink: true,
    files: ['lock', 'agent.sock', 'agent.sock.lock', 'dhcp.sock', 'dhcp.pid'],
    content: '',
    uses: [
      async (path) => (await acquireLock(join(path, 'lock'), 0)).close(),
      async (path) => {
        const server = createServer();
        await listenOn(server, join(path, 'agent.sock'), {}, 'It is in use');
        server.close();
      },
      (path) =>
        withoutStack(() =>
          withDaemon(join(path, 'dhcp.sock'), async () => {}, ['-pidfile', join(path, 'dhcp.pid')]),
        ),
    ],
  },
];

/** An input has a byte for the file, one for what is planted in its place, and the content of that. */
function plantedTarget({ name, directory: below, mayBeLink, files, content, foreign, uses }: Store): Target {
  const places = mayBeLink ? files : ['.', ...files];
  return {
    name,
    samples: places.flatMap((_, place) =>
      plantings.map((what) => Buffer.concat([Buffer.of(place, what), Buffer.from(content)])),
    ),
    async run(input, own) {
      const [outside, check] = guarded(
        own,
        files.filter((file) => !file.startsWith('..')),
        foreign,
      );
      const directory = join(own, below);
      const [at = 0, what = 0] = input;
      const planted = join(directory, places[at % places.length]!);
      plant(planted, what, outside, input.subarray(2));
      // Old, as a claim that was marked for removal just now would be waited for.
      lutimesSync(planted, 0, 0);
      for (const use of uses) {
        let read: unknown;
        try {
          read = await use(directory);
        } catch (error) {
          requireRefusal(error);
        }
        if (JSON.stringify(read)?.includes(secret)) throw new Error('Something outside was read');
        check();
      }
    },
  };
}

export const plantedTargets: readonly Target[] = stores.map(plantedTarget);
