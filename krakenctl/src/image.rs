//! `image`: the system images that nodes can run.

use std::path::PathBuf;

use proto::v1;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{Format, Table, printable};
use crate::{Context, value, view};

/// Digits of a digest that tell images apart on a screen.
const SHORT_DIGEST: usize = 12;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the images of the head
    List {
        /// How to print them
        #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
        output: Format,
    },
    /// Add an image, after its signature and every digest were checked
    Add(AddArgs),
}

/// Arguments of `image add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder must be on the head's own file system and readable by it. `kraken-image image` makes such folders.

Examples:
  kraken-image image --name demo --from rootfs.tar --keys /var/lib/kraken/keys --out /tmp/demo
  krakenctl image add /tmp/demo --dry-run      would it be taken, and what of it is there already?
  krakenctl image add /tmp/demo
  krakenctl node set @rack1 /image/name=demo /image/state=ACTIVE --wait")]
pub(crate) struct AddArgs {
    /// Folder with manifest.json and its layers
    folder: PathBuf,
    /// Check the signature and every digest, tell what would be copied or replaced, and change nothing: exit code 8, or 0 if all of it is there
    #[arg(long)]
    dry_run: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// An image for JSON and YAML. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct ImageView {
    name: String,
    digest: String,
    size_bytes: u64,
    security_version: u64,
    added_ms: u64,
}

impl From<v1::Image> for ImageView {
    fn from(image: v1::Image) -> Self {
        Self {
            name: image.name,
            digest: image.digest,
            size_bytes: image.size_bytes,
            security_version: image.security_version,
            added_ms: image.added_ms,
        }
    }
}

/// An image that was added, or would be. Field names are an interface.
#[derive(Clone, Debug, Serialize)]
struct AddedView {
    #[serde(flatten)]
    image: ImageView,
    /// Digest of the image that had its name.
    replaces: Option<String>,
    /// Files that were not there yet, and their bytes.
    new_files: u32,
    new_bytes: u64,
}

impl AddedView {
    /// Nothing of it is new.
    fn is_there(&self) -> bool {
        self.new_files == 0 && self.replaces.as_ref() == Some(&self.image.digest)
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::List { output } => list(output, context).await,
        Command::Add(args) => add(args, context).await,
    }
}

async fn list(output: Format, context: &Context) -> Result<Exit, Failure> {
    let mut head = context.head().await?;
    let images = head
        .list_images(v1::ListImagesRequest {})
        .await?
        .into_inner()
        .images;
    let views: Vec<ImageView> = images.into_iter().map(ImageView::from).collect();
    if views.is_empty() && matches!(output, Format::Table | Format::Wide) {
        context.note("no images yet; `krakenctl image add --help` shows how to add one");
    }
    context.screen.list(
        output,
        &views,
        |image| image.name.clone(),
        || table(&views, output),
    )?;
    Ok(Exit::Ok)
}

fn table(images: &[ImageView], format: Format) -> Table {
    let now = view::now_ms();
    let mut table = Table::new(["NAME", "DIGEST", "SIZE", "ADDED", "+SECURITY VERSION"]);
    for image in images {
        let digits = if format == Format::Table {
            SHORT_DIGEST
        } else {
            usize::MAX
        };
        let digest: String = image.digest.chars().take(digits).collect();
        table.row(vec![
            image.name.as_str().into(),
            digest.into(),
            size(image.size_bytes).into(),
            view::ago(image.added_ms, now).into(),
            image.security_version.to_string().into(),
        ]);
    }
    table
}

fn size(bytes: u64) -> String {
    value::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

async fn add(args: AddArgs, context: &Context) -> Result<Exit, Failure> {
    // The head has another working directory.
    let folder = std::path::absolute(&args.folder)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.folder.display())))?;
    let path = folder
        .to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not UTF-8", folder.display())))?;
    let mut head = context.head().await?;
    let request = v1::AddImageRequest {
        path: path.to_owned(),
        dry_run: args.dry_run,
    };
    let answer = head.add_image(request).await?.into_inner();
    let replaces = answer.replaces.map(|old| old.digest);
    let view = AddedView {
        image: answer.image.unwrap_or_default().into(),
        replaces,
        new_files: answer.new_files,
        new_bytes: answer.new_bytes,
    };
    let is_there = view.is_there();
    if args.output == Format::Name {
        context.screen.print(&format!("{}\n", view.image.name))?;
    } else {
        let text = || words(&view, args.dry_run);
        context.screen.item(args.output, &view, text)?;
    }
    Ok(match args.dry_run && !is_there {
        true => Exit::Pending,
        false => Exit::Ok,
    })
}

/// What adding an image did, or would do.
fn words(added: &AddedView, dry_run: bool) -> String {
    let image = &added.image;
    let (name, digest) = (printable(&image.name), printable(&image.digest));
    if added.is_there() {
        return format!("{name} is there already, sha256 {digest}\n");
    }
    let would = if dry_run { "would be " } else { "" };
    let mut text = format!(
        "{} {name}, {}, sha256 {digest}\n",
        if dry_run { "would add" } else { "added" },
        size(image.size_bytes)
    );
    if let Some(old) = &added.replaces {
        let old = match *old == image.digest {
            true => "the same image, of which files are missing",
            false => &format!("the one with sha256 {}", printable(old)),
        };
        text += &format!("  in place of {old}\n");
    }
    text += &match added.new_files {
        0 => "  all its files are there already\n".to_owned(),
        files => format!(
            "  {}, {}, {would}copied\n",
            view::count(files as usize, "file"),
            size(added.new_bytes)
        ),
    };
    text
}
