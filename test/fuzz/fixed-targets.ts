/** Hints and files at fixed paths, and what anyone in a sandbox may write to an interface. */

import { spawnSync } from 'node:child_process';
import { lutimesSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { areConfirmed, rememberConfirmed } from '../../lib/firewall/confirmed-rules.ts';
import { parseRules } from '../../lib/firewall/rules.ts';
import { Address } from '../../lib/ip.ts';
import { Programs } from '../../lib/kernel/programs.ts';
import { NameServer } from '../../plugins/dnsname/server.ts';
import { cleanEnv } from '../support/run.ts';
import { answerOf, plugins } from './calls.ts';
import { beginAnew, pictureOfBystander, pluginPath, program, sandbox } from './own-host.ts';
import { guarded, plant, plantings } from './plant.ts';
import { mayRefuseLater, type Target } from './target.ts';

const confirmedDirectory = '/run/cni/iptables';

const confirmedRules: Target = {
  name: 'confirmed-rules',
  // First a byte for what is planted in place of the hint, then its content.
  samples: [
    ...plantings.map((what) => Buffer.from([what, 91, 93])),
    ...['[{"handle":"1","digest":"a"}]', '[null]', '[{"handle":{},"digest":[]}]', '{"length":1}'].map(
      (text) => `\0${text}`,
    ),
  ],
  run(input, directory) {
    const [outside, check] = guarded(directory);
    const programs = new Programs(cleanEnv);
    const rules = parseRules('-A BYSTANDER -s 192.0.2.2/32 -j ACCEPT\n');
    rememberConfirmed(programs, 4, 'filter', rules);
    const [name = ''] = readdirSync(confirmedDirectory);
    const file = join(confirmedDirectory, name);
    const noted = readFileSync(file, 'utf8');
    if (!areConfirmed(programs, 4, 'filter', rules)) throw new Error('What was noted is not confirmed');
    rmSync(file);
    const [what = 0] = input;
    plant(file, what, outside, input.subarray(1));
    const isConfirmed = areConfirmed(programs, 4, 'filter', rules);
    if (isConfirmed && input.toString('utf8', 1) !== noted)
      throw new Error('It was confirmed by something else');
    rememberConfirmed(programs, 4, 'filter', rules);
    check();
  },
};

const serverDirectory = '/run/containers/cni/dnsname/n';
const serverFiles = ['.', 'addnhosts', 'dnsmasq.conf', 'pidfile'];

const nameServer: Target = {
  name: 'dnsname-planted',
  // First a byte for the file, then one for what is planted there, then its content.
  samples: serverFiles.flatMap((_, at) =>
    plantings.map((what) => Buffer.from([at, what, ...Buffer.from('1\n')])),
  ),
  async run(input, directory) {
    const [outside, check] = guarded(directory, serverFiles.slice(1));
    const [at = 0, what = 0] = input;
    const planted = join(serverDirectory, serverFiles[at % serverFiles.length]!);
    plant(planted, what, outside, input.subarray(2));
    lutimesSync(planted, 0, 0);
    // With these, dnsmasq never starts.
    const run = async () => ({ status: 1, stdout: '', stderr: 'no' });
    const programs = { run, holding: () => programs } as unknown as Programs;
    const server = () => new NameServer('n', programs, { domain: 'd', upstreams: [] });
    const host = { owner: 'c1/eth0', address: Address.parse('10.1.0.2'), names: ['web'] };
    const uses = [
      async () => server().read(),
      () => server().update((before) => ({ ...before, hosts: [...before.hosts, host] })),
      () => server().update((before) => ({ ...before, hosts: [] })),
    ];
    for (const use of uses) {
      await mayRefuseLater(use);
      check();
    }
    if (server().pid() !== undefined) throw new Error('Something passes for a name server');
  },
};

const hostDevice = plugins.find(({ name }) => name === 'host-device')!;
const mac = '02:00:00:00:00:77';

const alias: Target = {
  name: 'host-device-alias',
  samples: ['up0', 'keep0', 'uplink', 'a/b', '..', 'x'.repeat(255), 'dev%d', 'all', '\u{202e}a', ''],
  begin: () => beginAnew({ links: [`link add up0 address ${mac} up type veth peer name up1`] }),
  async run(input) {
    const bystander = pictureOfBystander();
    const ipam = { type: 'static', addresses: [{ address: '10.9.0.2/24' }] };
    const config = JSON.stringify({ cniVersion: '1.1.0', name: 'n', type: 'host-device', hwaddr: mac, ipam });
    const call = async (command: string) => {
      const id = { CNI_CONTAINERID: 'c1', CNI_IFNAME: 'eth1', CNI_NETNS: sandbox, CNI_PATH: pluginPath };
      const find = () => Promise.resolve(plugins.find(({ name }) => name === 'static')!);
      const answer = await answerOf(hostDevice, config, { ...id, CNI_COMMAND: command }, { program, find });
      if (answer && 'code' in answer) throw new Error(`${command} was refused: ${JSON.stringify(answer)}`);
    };
    await call('ADD');
    const text = input.toString('utf8').replaceAll('\0', '');
    spawnSync('ip', ['-n', 'pod', 'link', 'set', 'eth1', 'alias', text], { env: cleanEnv });
    await call('DEL');
    const found = readdirSync('/sys/class/net').filter(
      (name) => readFileSync(`/sys/class/net/${name}/address`, 'latin1') === `${mac}\n`,
    );
    if (found.length !== 1) throw new Error(`The device is called ${JSON.stringify(found)}`);
    if (pictureOfBystander() !== bystander)
      throw new Error(`A bystander was changed: ${pictureOfBystander()}`);
  },
};

export const fixedTargets: readonly Target[] = [confirmedRules, nameServer, alias];
