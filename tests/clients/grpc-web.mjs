// Registers, signs in and reads the account over gRPC-Web, with Connect's client and the exported descriptor set.
//
// Then reads a stream of the fixture.
//
//   node tests/clients/grpc-web.mjs URL DESCRIPTORS EMAIL
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_PACKAGES}/`);
const { createFileRegistry, fromBinary } = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");
const { createClient, Code, ConnectError } = require("@connectrpc/connect");
const { createGrpcWebTransport } = require("@connectrpc/connect-node");

const [url, descriptors, email] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const transport = createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1" });
const client = (name) => createClient(registry.getService(name), transport);

const auth = client("drystone.auth.v1.AuthService");
const user = client("drystone.user.v1.UserService");

await auth.register({ email, password: "correct horse", displayName: "Ada" });
const tokens = await auth.signIn({ email, password: "correct horse" });
const headers = { authorization: `Bearer ${tokens.accessToken}` };
const me = await user.getMe({}, { headers });

// A refusal has its code, and the reason in its details.
const refusal = await user.getMe({}).catch((error) => ConnectError.from(error));
const details = refusal.findDetails(registry.getMessage("google.rpc.ErrorInfo"));

const fixture = client("acme.fixture.v1.FixtureService");
const stream = [];
for await (const message of fixture.watch({ text: "one" })) stream.push(message.text);
console.log(JSON.stringify({ stream, email: me.email, code: Code[refusal.code], reason: details[0]?.reason }));
