/** Masquerading as bridge and ptp offer it: what each verb does for it. */

import { backendNames, requireComplete } from '../firewall/backend.ts';
import {
  type BackendChoice,
  changeWithBackend,
  missingInBoth,
  withBackend,
} from '../firewall/backend-choice.ts';
import { masqueradeBackend } from '../firewall/masquerade.ts';
import type { MasqueradeBackend } from '../firewall/masquerade-backend.ts';
import type { Prefix } from '../ip.ts';
import type { Call } from './call.ts';
import { knownAddresses, neighbourAddresses } from './interface.ts';
import type { MasqueradeConfig } from './masquerade-shape.ts';
import type { Repair } from './plugin.ts';
import type { IPConfig } from './result.ts';
import { runTogether } from './steps.ts';

/**
 * What each verb does for masquerading: nothing unless "ipMasq" asks for it. It overlaps with kernel work
 * when it is started first and awaited last.
 */
export function masquerade(call: Call<MasqueradeConfig>) {
  const { ipMasq = false, ipMasqBackend } = call.config;
  const { attachment, programs } = call;
  const choiceFor = (prefixes: readonly Prefix[]): BackendChoice => ({
    programs,
    fixed: ipMasqBackend,
    families: prefixes.map(({ family }) => family),
    table: 'nat',
  });
  const add = (prefixes: readonly Prefix[]) =>
    changeWithBackend(
      choiceFor(prefixes),
      (what, step) => call.undo(what, step),
      (name, undo) => masqueradeBackend(name, programs).add(attachment, prefixes, undo),
    );
  const missing = (prefixes: readonly Prefix[]) =>
    missingInBoth(choiceFor(prefixes), (name) =>
      masqueradeBackend(name, programs).missing(attachment, prefixes),
    );
  return {
    /** Masquerades the addresses, and undoes that if ADD fails. */
    async add(ips: readonly IPConfig[]): Promise<void> {
      if (!ipMasq) return;
      await add(ips.map(({ address }) => address));
    },
    /** Removes the rules of this attachment, whichever backend made them. */
    async del(): Promise<void> {
      if (!ipMasq) return;
      const hints = knownAddresses(call);
      await eachBackend(call, (backend) => backend.del(attachment, () => neighbourAddresses(call), hints));
    },
    async check(): Promise<void> {
      if (!ipMasq) return;
      requireComplete(await missing(knownAddresses(call)), 'Packets of the container are not masqueraded');
    },
    /** The rules that are missing. */
    async repair(): Promise<Repair[]> {
      const prefixes = knownAddresses(call);
      const lost = ipMasq ? await missing(prefixes) : [];
      return lost.map((what) => ({ what, restore: () => add(prefixes) }));
    },
    /** @throws Error when the backend cannot be used. */
    async status(): Promise<void> {
      if (!ipMasq) return;
      await withBackend(choiceFor([]), (name) => masqueradeBackend(name, programs).probe());
    },
    /** Removes the rules of attachments that no longer exist. */
    async gc(): Promise<void> {
      if (!ipMasq) return;
      await eachBackend(call, (backend) => backend.gc(call.config.name, call.validAttachments));
    },
  };
}

/**
 * Works on both backends, as the host or the configuration may have changed since the attachment was made.
 * Both start at once: the program of one runs during the kernel work of the other.
 */
async function eachBackend(call: Call, work: (backend: MasqueradeBackend) => Promise<void>): Promise<void> {
  await runTogether(call, ...backendNames.map((name) => () => work(masqueradeBackend(name, call.programs))));
}
