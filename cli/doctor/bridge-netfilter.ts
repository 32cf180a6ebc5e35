/** Whether Services of kube-proxy can work between pods on one bridge, and from a pod to itself. */

import { nftTableOf, withNftables } from '../../lib/firewall/nftables.ts';
import type { Family } from '../../lib/ip.ts';
import { bridgePortSettings } from '../../lib/kernel/bridge-port.ts';
import { readSysctl, writeSysctl } from '../../lib/kernel/sysctl.ts';
import { hasChain } from '../../lib/netlink/nftables/objects.ts';
import { hasFamily, ingressOf, isRouted, type RunningAttachment } from '../inventory/running.ts';
import type { Check, Finding } from './check.ts';
import type { Context } from './context.ts';

export const bridgeNetfilter: Check = {
  id: 'bridge-nf-call',
  title: 'Bridge netfilter',
  run(context) {
    const families = ([4, 6] as const).filter(
      (family) => hasServices(family, context) && bridged(family, context).length > 0,
    );
    const seen =
      families.length === 0
        ? 'nothing here needs it'
        : "the firewall sees the packets of bridges, as kube-proxy's rules need";
    return { findings: [...families.flatMap(setting), ...hairpins(families, context)], seen };
  },
};

/** Whether kube-proxy has rules, in its iptables or its nftables mode. */
function hasServices(family: Family, { rules }: Context): boolean {
  const hasIptables = rules.some(
    (saved) =>
      saved.family === family && saved.tables.get('nat')?.some((line) => line.startsWith(':KUBE-SERVICES ')),
  );
  return (
    hasIptables || withNftables((socket) => hasChain(socket, nftTableOf(family, 'kube-proxy'), 'services'))
  );
}

/** The attachments to bridges that may reach one another through a Service. */
function bridged(family: Family, { running, inventory: { links } }: Context): RunningAttachment[] {
  return running.filter(
    (one) => isRouted(one) && hasFamily(one, family) && ingressOf(one, links)?.kind === 'bridge',
  );
}

function pathOf(family: Family): string[] {
  return ['bridge', `bridge-nf-call-${family === 4 ? 'iptables' : 'ip6tables'}`];
}

function setting(family: Family): Finding[] {
  const path = pathOf(family);
  const name = `net/${path.join('/')}`;
  const value = readSysctl(path);
  if (value === '1') return [];
  return [
    {
      severity: 'error',
      subject: name,
      message: `Services fail between pods on the same bridge: "${name}" is ${value ?? 'missing'}, and must be 1`,
      cause:
        value === undefined
          ? 'The module "br_netfilter" is not loaded'
          : 'Answers pass the bridge by, so that kube-proxy cannot translate their addresses back',
      fix: `${value === undefined ? 'modprobe br_netfilter && ' : ''}sysctl -w ${name}=1`,
      ...(value !== undefined && { apply: () => writeSysctl(path, '1') }),
    },
  ];
}

/** One finding for each network whose packets would have to leave a bridge by the port they came in by. */
function hairpins(families: readonly Family[], context: Context): Finding[] {
  const { links } = context.inventory;
  const stuck = families
    .filter((family) => readSysctl(pathOf(family)) === '1')
    .flatMap((family) => bridged(family, context))
    .filter(({ attachment }) =>
      links.some(
        (link) =>
          attachment.hostInterfaces.includes(link.name) && bridgePortSettings(link)?.hairpin === false,
      ),
    );
  return [...new Set(stuck.map(({ attachment }) => attachment.network))].map((network) => ({
    severity: 'info',
    subject: `network "${network}"`,
    message: `No pod of network "${network}" reaches itself by a Service: the ports of its bridge are not in hairpin mode`,
    cause: `The network does not set "hairpinMode"`,
    fix: `Set "hairpinMode" to true in network "${network}", and make its pods anew`,
  }));
}
