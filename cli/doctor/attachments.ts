/** CHECK of every attachment. */

import { attachmentKey } from '../../lib/attachment.ts';
import type { RunningAttachment } from '../inventory/running.ts';
import { isByHand } from '../inventory.ts';
import { sandboxProblems } from '../sandbox.ts';
import { checkStates } from '../state.ts';
import { count } from '../terminal.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import { findRepairs } from './repairs.ts';

export const attachments: Check = {
  id: 'attachments',
  title: 'Attachments',
  async run(context) {
    const { running, inventory, environment, once } = context;
    const states = await checkStates(
      running.map(({ attachment }) => attachment),
      inventory,
      environment,
      once,
    );
    const broken = running.filter(({ attachment }) => states.get(attachment)?.kind === 'broken');
    const repairs = await findRepairs(broken, context, ({ attachment, result }, missing) => {
      const { foundBy } = states.get(attachment)!;
      const isOnHost = missing.some((what) => what.startsWith(`${foundBy}: `));
      return isOnHost && sandboxProblems(attachment, result).length === 0;
    });
    const findings = broken.map(
      (one): Finding => ({
        severity: 'error',
        subject: `${one.name} on network "${one.attachment.network}"`,
        key: attachmentKey(one.attachment),
        message: states.get(one.attachment)!.problems.join('; '),
        ...(repairs.get(one) ?? {
          cause: 'Something has changed since ADD: another program, an operator, or the container itself',
          fix: anewCommand(one),
        }),
      }),
    );
    const unchecked = [...states.values()].filter(({ kind }) => kind === 'unchecked').length;
    const rest = unchecked > 0 ? `, ${unchecked} cannot be checked` : '';
    return {
      findings,
      seen: `CHECK of ${count(states.size - unchecked, 'attachment')} finds them as ADD left them${rest}`,
    };
  },
};

/** The command that has a pod attached anew. */
function anewCommand(one: RunningAttachment): string {
  const { pod, containerId, network, netns, ifname } = one.attachment;
  if (isByHand(containerId)) {
    const sandbox = `${shellWord(network)} ${shellWord(netns)}`;
    const interfaceName = ifname === 'eth0' ? [] : [`CNI_IFNAME=${shellWord(ifname)}`];
    const del = [...interfaceName, 'cni del', sandbox];
    const add = [...interfaceName, ...argumentsOf(one), 'cni add', sandbox];
    return `${del.join(' ')} && ${add.join(' ')}`;
  }
  if (pod?.namespace)
    return `kubectl delete pod --namespace ${shellWord(pod.namespace)} ${shellWord(pod.name)}`;
  if (pod) return `podman restart ${shellWord(pod.name)}`;
  return `Have the runtime of container "${containerId}" make it anew`;
}

/** The arguments of an ADD by hand, such as its ports, as environment variables. */
function argumentsOf({ record }: RunningAttachment): string[] {
  const args = (record?.args ?? []).map(([name, value]) => `${name}=${value}`).join(';');
  const capabilityArgs = record?.capabilityArgs ?? {};
  return [
    ...(args === '' ? [] : [`CNI_ARGS=${shellWord(args)}`]),
    ...(Object.keys(capabilityArgs).length === 0
      ? []
      : [`CAP_ARGS=${shellWord(JSON.stringify(capabilityArgs))}`]),
  ];
}
