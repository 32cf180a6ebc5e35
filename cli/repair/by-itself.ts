/** Repairs that the agent does by itself: when it starts, and when firewalld has removed rules. */

import type { Agent } from '../../agent/agent.ts';
import { waitForFirewalld } from '../../lib/firewall/firewalld.ts';
import { onFirewalldReload } from '../../lib/firewall/firewalld-reload.ts';
import { Programs } from '../../lib/kernel/programs.ts';
import type { Suite } from '../../main.ts';
import { describeError } from '../errors.ts';
import { takeInventory } from '../inventory.ts';
import { cacheDir, callerEnvironment, configDir, environment } from '../settings.ts';
import { checkStates } from '../state.ts';
import { print, warn } from '../terminal.ts';
import { repairAttachments, sortOut } from './attachment.ts';
import { describeRepaired, isBroken, summarize } from './report.ts';

/**
 * Begins with a repair, and does another one after each reload of firewalld. The agent does not end before a
 * repair has, which does no more than finish its attachment then.
 * @param program that stands for the suite.
 * @returns an object that ends this when disposed of.
 */
export function repairByItself(agent: Agent, suite: Suite, program: string): Disposable {
  const programs = new Programs(callerEnvironment(), agent.sharing);
  let isWanted = false;
  let isRunning = false;
  const repairAgain = async () => {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    try {
      // Whatever is lost during a repair is left to the next one.
      while (isWanted && !agent.stopping.aborted) {
        isWanted = false;
        await waitForFirewalld(programs);
        await repairAll(agent, suite, program);
      }
    } catch (error) {
      warn(`Nothing is repaired: ${describeError(error)}`);
    } finally {
      isRunning = false;
    }
  };
  const repair = () => void agent.keepAlive(repairAgain);
  repair();
  try {
    return onFirewalldReload(programs, repair, warn);
  } catch (error) {
    warn(`Reloads of firewalld are not noticed: ${describeError(error)}`);
    return { [Symbol.dispose]() {} };
  }
}

async function repairAll(agent: Agent, suite: Suite, program: string): Promise<void> {
  const inventory = await takeInventory(configDir(), cacheDir());
  for (const { message } of inventory.hidden) warn(message);
  const { running, ...others } = sortOut(inventory.attachments, inventory);
  const options = {
    suite,
    program,
    environment: environment(),
    isDryRun: false,
    sharing: agent.sharing,
    signal: agent.stopping,
    inTurn: <T>({ containerId, ifname }: { containerId: string; ifname: string }, work: () => Promise<T>) =>
      agent.takeTurn(containerId, ifname, work),
  };
  const repaired = await repairAttachments(running, inventory, options);
  const changed = repaired.filter(({ isChanged, isDeleted }) => isChanged && !isDeleted);
  const states = await checkStates(
    changed.map(({ attachment }) => attachment),
    inventory,
    options.environment,
  );
  const unchecked = { kind: 'unchecked', problems: [] } as const;
  const checked = repaired.map((one) => ({ ...one, state: states.get(one.attachment) ?? unchecked }));
  for (const one of checked) {
    if (isBroken(one)) agent.statistics.unrepaired++;
    else if (one.restored.length > 0) agent.statistics.repaired++;
    for (const line of describeRepaired(one, false)) print(line);
  }
  print(summarize(checked, others, false));
}
