/** host-local: one verb at a time, on a host where many addresses are reserved. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { Address } from '../../lib/ip.ts';
import { bothSuites, call, type Suite } from './call.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

/** ADD and DEL of one address. @param count addresses that are reserved already. */
export function hostLocal(count: number, rounds: number): Scenario {
  const name = `host-local, ${count.toLocaleString('en')} reserved`;
  return {
    name,
    measure() {
      const [add, del] = [emptySamples(), emptySamples()];
      const directory = (suite: Suite) => `/var/lib/cni/bench-${suite}`;
      for (const suite of bothSuites) reserve(`${directory(suite)}/bench`, count);
      alternate(rounds, (suite, round, counts) => {
        const config = {
          name: 'bench',
          type: 'host-local',
          ipam: { type: 'host-local', dataDir: directory(suite), subnet: '10.0.0.0/8' },
        };
        const verb = { suite, containerId: `round${round}`, netns: '/unused' };
        const added = call('host-local', { ...verb, command: 'ADD' }, config).time;
        const deleted = call('host-local', { ...verb, command: 'DEL' }, config).time;
        if (!counts) return;
        add[suite].push(added);
        del[suite].push(deleted);
      });
      for (const suite of bothSuites) rmSync(directory(suite), { recursive: true });
      return [
        { name: `${name}: ADD`, unit: 'ms', starts: 1, ...add },
        { name: `${name}: DEL`, unit: 'ms', starts: 1, ...del },
      ];
    },
  };
}

function reserve(directory: string, count: number): void {
  mkdirSync(directory, { recursive: true });
  const first = Address.parse('10.0.0.2');
  for (let i = 0; i < count; i++) writeFileSync(`${directory}/${first.plus(i)}`, `present${i}\r\neth0`);
  writeFileSync(`${directory}/last_reserved_ip.0`, `${first.plus(count - 1)}`);
}
