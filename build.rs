//! Compiles the protos: Rust code for tonic, the descriptor that Envoy and reflection read, and the table of the operations that have
//! an HTTP binding, so that the bindings stand in the protos alone.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_reflect::{DynamicMessage, ExtensionDescriptor, Kind, MethodDescriptor, ReflectMessage, Value};

const FILES: [&str; 9] = [
    "supos/auth/v1/auth.proto",
    "supos/auth/v2/auth.proto",
    "supos/auth/v281/auth.proto",
    "supos/auth/admin/v1/apps.proto",
    "supos/auth/admin/v1/backups.proto",
    "supos/auth/admin/v1/identity_providers.proto",
    "supos/auth/admin/v1/users.proto",
    "supos/auth/admin/v1/sessions.proto",
    "supos/auth/admin/v1/signing_keys.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;

    let mut descriptor = protox::Compiler::new(["proto"])?;
    descriptor.include_imports(true).open_files(FILES)?;
    // prost's own FileDescriptorSet drops the `google.api.http` options; this encoding keeps them.
    fs::write(out_dir.join("descriptor.pb"), descriptor.encode_file_descriptor_set())?;

    let pool = compiler.descriptor_pool();
    let http = pool.get_extension_by_name("google.api.http").ok_or("google.api.http is not defined")?;
    let mut table = String::from("&[\n");
    let mut requests = String::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        if let Some(operation) = operation(&method, &http)? {
            table.push_str(&operation);
            requests.push_str(&request(&method)?);
        }
    }
    table.push(']');
    fs::write(out_dir.join("operations.rs"), table)?;
    fs::write(out_dir.join("requests.rs"), requests)?;
    Ok(())
}

/// The row of one operation in the table, or none when the method has no HTTP binding.
fn operation(method: &MethodDescriptor, http: &ExtensionDescriptor) -> Result<Option<String>, Box<dyn Error>> {
    let options = method.options();
    if !options.has_extension(http) {
        return Ok(None);
    }
    let options = options.get_extension(http);
    let rule = options.as_message().ok_or("google.api.http is no message")?;
    let mut bindings = String::new();
    write_binding(&mut bindings, rule)?;
    for further in rule.get_field_by_name("additional_bindings").ok_or("no additional_bindings")?.as_list().ok_or("no list")? {
        write_binding(&mut bindings, further.as_message().ok_or("no binding")?)?;
    }
    let deprecated = method.options().get_field_by_name("deprecated").is_some_and(|value| matches!(*value, Value::Bool(true)));
    let names = |keep: fn(&Kind) -> bool| {
        method.input().fields().filter(|field| keep(&field.kind())).map(|field| field.json_name().to_owned()).collect::<Vec<String>>()
    };
    let parameters = names(|kind| !matches!(kind, Kind::Message(_)));
    let flags = names(|kind| *kind == Kind::Bool);
    let service = method.parent_service();
    // `supos.auth.v281` and `SignOut` make `v281.SignOut`.
    let name = format!("{}.{}", service.package_name().rsplit('.').next().unwrap_or_default(), method.name());
    Ok(Some(format!(
        "Operation {{ rpc: \"/{}/{}\", name: {name:?}, bindings: &[{bindings}], parameters: &{parameters:?}, \
         flags: &{flags:?}, deprecated: {deprecated} }},\n",
        service.full_name(),
        method.name(),
    )))
}

fn write_binding(out: &mut String, rule: &DynamicMessage) -> Result<(), Box<dyn Error>> {
    for method in ["get", "post"] {
        let field = rule.descriptor().get_field_by_name(method).ok_or("no such pattern")?;
        if rule.has_field(&field) {
            let path = rule.get_field(&field);
            let path = path.as_str().ok_or("a path is no string")?;
            write!(out, "Binding {{ method: \"{}\", path: {path:?} }}, ", method.to_uppercase())?;
            return Ok(());
        }
    }
    Err("a binding has neither get nor post".into())
}

/// The `Request` implementation of an operation's request message: its text and yes-or-no parameters and its raw JSON body by name.
fn request(method: &MethodDescriptor) -> Result<String, Box<dyn Error>> {
    let input = method.input();
    let package = input.package_name().split('.').collect::<Vec<_>>().join("::");
    let (mut texts, mut taken) = (String::new(), String::new());
    for field in input.fields().filter(|field| field.kind() == Kind::String) {
        write!(texts, "({:?}, self.{}.as_str()), ", field.json_name(), field.name())?;
        write!(taken, "({:?}, self.{}), ", field.json_name(), field.name())?;
    }
    let mut flags = String::new();
    for field in input.fields().filter(|field| field.kind() == Kind::Bool) {
        write!(flags, "({:?}, self.{}), ", field.json_name(), field.name())?;
    }
    let json = if input.get_field_by_name("json").is_some() { "self.json.as_ref()" } else { "None" };
    Ok(format!(
        "impl Request for pb::{package}::{} {{\n    fn texts(&self) -> Vec<(&'static str, &str)> {{ vec![{texts}] }}\n    \
         fn into_texts(self) -> Vec<(&'static str, String)> {{ vec![{taken}] }}\n    \
         fn flags(&self) -> Vec<(&'static str, bool)> {{ vec![{flags}] }}\n    \
         fn json(&self) -> Option<&pb::google::api::HttpBody> {{ {json} }}\n}}\n",
        input.name(),
    ))
}
