/** Alternative names of interfaces. Sources: ip-link(8), "ip link property", linux/rtnetlink.h. */

import type { Request } from '../netlink/message.ts';
import { linkLayout } from './link.ts';

const RTM_DELLINKPROP = 109;

/** Removes an alternative name from an interface. @param label the interface's name, for error messages. */
export function deleteAlternativeName(index: number, name: string, label: string): Request {
  return {
    action: `delete alternative name "${name}" of interface "${label}"`,
    type: RTM_DELLINKPROP,
    flags: 0,
    payload: linkLayout.encode({ index }, { properties: { altNames: [name] } }),
    names: linkLayout,
  };
}
