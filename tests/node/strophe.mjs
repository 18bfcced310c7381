// Logs in by Strophe.js over websocket. Takes lists of jobs (tests/strophe.py says of what) as lines of JSON, runs the jobs one
// after another, and answers each list by the list of their outcomes.

import { createInterface } from "node:readline";

import { Strophe } from "strophe.js";

const { AUTHFAIL, CONNFAIL, CONNECTED, DISCONNECTED, DISCONNECTING } = Strophe.Status;
const SASL = new Set(["auth", "challenge", "response", "success", "failure"]);
const CLASSES = {
    "SCRAM-SHA-512": Strophe.SASLSHA512,
    "SCRAM-SHA-384": Strophe.SASLSHA384,
    "SCRAM-SHA-256": Strophe.SASLSHA256,
    "SCRAM-SHA-1": Strophe.SASLSHA1,
    PLAIN: Strophe.SASLPlain,
    OAUTHBEARER: Strophe.SASLOAuthBearer,
    "X-OAUTH2": Strophe.SASLXOAuth2,
    ANONYMOUS: Strophe.SASLAnonymous,
    EXTERNAL: Strophe.SASLExternal,
};

// The custom mechanism of the Strophe.js manual: its one message is a token.
class MyMechanism extends Strophe.SASLMechanism {
    constructor(name = "X-MY-MECHANISM", isClientFirst = true, priority = 100) {
        super(name, isClientFirst, priority);
    }

    onChallenge(connection) {
        return connection.pass;
    }
}

function run(job) {
    return new Promise((resolve) => {
        const outcome = { statuses: [], dialogue: [], mechanism: "", condition: "", error: "", jid: "", keys: null };
        const options = job.mechanisms ? { mechanisms: job.mechanisms.map((name) => CLASSES[name]) } : {};
        const connection = new Strophe.Connection(job.url, options);
        for (const name of job.disabled) connection.mechanisms[name].test = () => false;
        if (job.custom) connection.registerSASLMechanism(MyMechanism);
        const timer = setTimeout(() => resolve({ ...outcome, error: "timeout" }), job.timeout * 1000);

        let settled = false;
        const note = (element) => {
            if (!SASL.has(element.nodeName)) return;
            outcome.dialogue.push([element.nodeName, element.textContent]);
            if (element.nodeName === "auth") outcome.mechanism = element.getAttribute("mechanism");
            if (element.nodeName === "failure" && settled) connection.disconnect();
        };
        connection.xmlInput = note;
        connection.xmlOutput = note;

        const told = (status, error, element) => {
            if (!settled && status !== DISCONNECTING && status !== DISCONNECTED) outcome.statuses.push(status);
            if (status === DISCONNECTED) {
                clearTimeout(timer);
                resolve(outcome);
            } else if (!settled && [CONNECTED, AUTHFAIL, CONNFAIL].includes(status)) {
                settled = true;
                outcome.error = error ?? "";
                outcome.jid = status === CONNECTED ? connection.jid : "";
                outcome.condition = element?.firstChild.nodeName ?? "";
                outcome.keys = connection.scram_keys;
                // Where Strophe.js itself found fault, the server has yet to answer its empty response.
                if (status !== AUTHFAIL || element) connection.disconnect();
            }
        };
        connection.connect(job.jid, job.password, told);
    });
}

Strophe.setLogLevel(Strophe.LogLevel.FATAL);
for await (const line of createInterface({ input: process.stdin })) {
    const outcomes = [];
    for (const job of JSON.parse(line)) outcomes.push(await run(job));
    console.log(JSON.stringify(outcomes));
}
process.exit();
