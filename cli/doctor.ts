/** `cni doctor`: what is wrong with the networks of the host, why, and how to fix it. */

import type { Suite } from '../main.ts';
import { runChecks } from './doctor/checks.ts';
import { lookAround } from './doctor/context.ts';
import { fixAll } from './doctor/fix.ts';
import { describeResults, resultsAsJson } from './doctor/report.ts';
import { ExitCode } from './errors.ts';
import { withFormat } from './format.ts';
import { environmentHelp } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { print } from './terminal.ts';

interface DoctorArguments {
  fix: boolean;
  format: 'text' | 'json';
}

/** The subcommand. @param suite whose plugins say what the networks need. */
export function doctor(suite: Suite): Subcommand<DoctorArguments> {
  return {
    builder: (yargs) =>
      withFormat(yargs, ['text', 'json'], 'How to print what was found')
        .option('fix', {
          type: 'boolean',
          default: false,
          describe: 'Fix what can be fixed without harm, and look again',
        })
        .example('$0 doctor', 'What is wrong, why, and which command fixes it')
        .example('$0 doctor --fix', 'Fix what is safe to fix')
        .epilogue(
          'Looks at the configurations and plugins, the agent, forwarding, rp_filter, bridge-nf-call, the firewalls, both variants of ' +
            'iptables, connection tracking, address ranges, the result cache, routes and MTUs, and runs CHECK of every attachment. ' +
            'Nothing is changed without --fix. What --fix did counts as fixed only if a second look no longer finds it. ' +
            `The exit code is 1 if there is an error or a warning.\n\n${environmentHelp}`,
        ),
    handler: async ({ fix, format }) => {
      const look = async () => runChecks(await lookAround(suite));
      const first = await look();
      const { fixes, results } = fix ? await fixAll(first, look) : { fixes: [], results: first };
      if (format === 'json') print(JSON.stringify(resultsAsJson(results, fixes), null, 2));
      else print(describeResults(results, fixes).join('\n'));
      const found = results.flatMap(({ findings }) => findings);
      if (found.some(({ severity }) => severity !== 'info')) process.exitCode = ExitCode.Failure;
    },
  };
}
